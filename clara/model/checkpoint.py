"""Checkpoints: load, save, and refuse what is incomplete or does not match."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clara.errors import InvalidCheckpoint
from clara.model import manifest, original
from clara.model.files import damaged, expected, new_folder, require, shown
from clara.model.fingerprints import file_hash
from clara.model.hub import local_folder
from clara.model.lora import Adapter
from clara.model.pooled import TENSORS
from clara.types import Mode

log = logging.getLogger(__name__)

ROLES = ("compressor", "reasoner", "generator")
"""Who an adapter is for. A trained checkpoint without a reasoner uses the compressor's."""

KINDS = ("memory", "pooled")
"""How latents are made: memory tokens as published, or weighted means over windows."""

INTERACTIONS = ("mean", "late")
"""By their mean rows, or each row of a question with the row of a passage that is nearest."""

MIN_SCORE = 0.55
"""Least cosine of checkpoints that say nothing of it, such as the published ones."""

STAGES = ("untrained", "stage1", "stage1_2", "stage2", "stage2_reasoning")

_FILES = ("adapters.safetensors", "rows.safetensors")
_POOLING = "pooling.safetensors"
"""Only in checkpoints of the pooled kind."""


_LATER: Mapping[str, Any] = {
    "reads_text": False,
    "prefers_text": False,
    "min_score": None,
    "latent_weight": None,
    "interaction": "mean",
    "text_refusal_margin": None,
    "refusal_margins": (),
}
"""Fields that came after the first checkpoints, as those have them."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What decides the shape and meaning of a checkpoint's weights; saved with them."""

    base: str
    """Folder or Hub name of the base model."""
    compr_rate: int
    """Tokens per row of a latent; where `rates` names several, the one used by default."""
    doc_max_length: int
    """Longest passage, in tokens."""
    sep: bool = True
    """Whether latents leave the separators of a prompt in place."""
    different_mem_tokens: bool = True
    """One memory token per place, or the same one in all of them."""
    lora_r: int = 16
    """Rank of the adapters."""
    generation_top_k: int = 5
    """Passages per answer in training."""
    training_stage: str = "untrained"
    """One of STAGES: the last one these weights went through."""
    kbtc_training: bool = False
    """Whether the embedding has one more row, for `<KBTC>`."""
    floor_rows: bool = False
    """Allows a rate that does not divide the length, rounding down, as original folders may."""
    kind: str = "memory"
    """One of KINDS."""
    rates: tuple[int, ...] = ()
    """Rates these weights were trained for; empty means `compr_rate` alone."""
    reads_text: bool = False
    """Whether the generator also reads plain text, or leaves it to the base."""
    prefers_text: bool = False
    """Whether text was measured to be answered from better than latents: mode `auto` reads it."""
    min_score: float | None = None
    """Cosine under which a passage is not read, measured on training data; None: the settings'."""
    latent_weight: float | None = None
    """What latents count in the ranking where words and dense vectors have 1 each, measured on
    training data; None: latents rank alone."""
    interaction: str = "mean"
    """One of INTERACTIONS: how pooled latents of question and passage are compared."""
    text_refusal_margin: float | None = None
    """Nats by which a refusal must lead every other answer where text is read, measured on
    training data; None: 0."""
    refusal_margins: tuple[float, ...] = ()
    """The same where latents are read, for each of `rates`; empty: 0."""

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "rates", tuple(self.rates) or (self.compr_rate,))  # JSON has lists
        object.__setattr__(self, "refusal_margins", tuple(self.refusal_margins))
        self._check_kind()
        self._check_margins()
        if self.training_stage not in STAGES:
            known = ", ".join(STAGES)
            raise _invalid(
                f"training_stage is {self.training_stage!r}; known are {known}", "training_stage"
            )
        for rate in () if self.floor_rows else self.rates:
            if self.doc_max_length % rate:
                raise _invalid(
                    f"doc_max_length {self.doc_max_length} is not a multiple of compr_rate {rate}",
                    "doc_max_length",
                    "Choose a rate that divides the length",
                )
        if self.n_mem < 1:
            raise _invalid(
                f"compr_rate {self.compr_rate} leaves no memory token for "
                f"{self.doc_max_length} tokens",
                "compr_rate",
            )

    def _check_types(self) -> None:
        for entry in fields(self):
            wanted = expected(value := getattr(self, entry.name), str(entry.type))
            if wanted:
                raise _invalid(f"{entry.name} must be {wanted}, got {shown(value)}", entry.name)

    def _check_margins(self) -> None:
        margins = self.refusal_margins
        if margins and len(margins) != len(self.rates):
            raise _invalid(
                f"refusal_margins has {len(margins)} numbers for {len(self.rates)} rates",
                "refusal_margins",
                "Give one for each rate, or leave it empty",
            )
        for value in (*margins, self.text_refusal_margin or 0.0):
            if not 0 <= value < math.inf:
                raise _invalid(
                    f"a refusal margin is {value}; it must be from 0 on", "refusal_margins"
                )

    def _check_kind(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise _invalid(f"kind is {self.kind!r}; known are {known}", "kind")
        if self.interaction not in INTERACTIONS:
            known = ", ".join(INTERACTIONS)
            raise _invalid(f"interaction is {self.interaction!r}; known are {known}", "interaction")
        if self.interaction == "late" and self.kind != "pooled":
            raise _invalid("memory tokens are compared as published", "interaction")
        if self.compr_rate not in self.rates:
            raise _invalid(
                f"rate {self.compr_rate} is none of those this checkpoint was trained for: "
                + ", ".join(map(str, self.rates)),
                "compr_rate",
                "Ask for one of them",
            )
        if self.kind == "memory" and len(self.rates) > 1:
            raise _invalid("memory tokens serve one rate", "rates", "Use the pooled kind")
        if self.kind == "pooled" and self.different_mem_tokens:
            raise _invalid("pooled latents stand on one memory token", "different_mem_tokens")

    @property
    def n_mem(self) -> int:
        """Rows of a latent: of the longest one, where short passages get fewer."""
        return self.doc_max_length // self.compr_rate

    @property
    def refusal_margin(self) -> float:
        """Of `refusal_margins`, that of `compr_rate`."""
        margins = self.refusal_margins
        return margins[self.rates.index(self.compr_rate)] if margins else 0.0

    @property
    def added(self) -> int:
        """Rows behind the base's own: memory tokens, `<AE>`, `<ENC>`, `<SEP>`, `<KBTC>`."""
        return (self.n_mem if self.different_mem_tokens else 1) + 3 + self.kbtc_training

    def numbers(self) -> dict[str, Any]:
        """Every field that changes an answer, so not where the base lies.

        Fields that were added later count where they are set: weights keep their hash.
        """
        found = asdict(self).items()
        return {k: v for k, v in found if k != "base" and (k not in _LATER or v != _LATER[k])}


@dataclass(frozen=True)
class Checkpoint:
    """One immutable set of weights over a base, with its configuration."""

    config: CheckpointConfig
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    """By role; empty for an untrained checkpoint."""
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    """`embed` and, where the base has a head of its own, `head`: all rows or the added ones.

    Empty means the rows that `initial_rows` makes from the base.
    """
    trained: bool = False
    name: str = "untrained"
    licence: str = ""
    base_hash: str | None = None
    """Hash of the base these weights were trained on; None where nobody noted it."""
    pooling: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """By role, for the pooled kind: what `clara.model.pooled.Pooling` holds.

    A pooled role without an adapter looks at the embedding alone, with no pass through the model.
    """
    notes: tuple[str, ...] = ()
    """What whoever uses these weights should know, a sentence each."""

    def at_rate(self, rate: int) -> Checkpoint:
        """The same weights, used at another of the rates they were trained for.

        Raises:
            InvalidCheckpoint: none of its rates; the message names them.
        """
        return replace(self, config=replace(self.config, compr_rate=rate))

    @property
    def auto_mode(self) -> Mode:
        """What mode `auto` reads where everything is there."""
        latents = self.trained and not self.config.prefers_text
        return Mode.LATENT if latents else Mode.TEXT

    def least_score(self, asked: float | None) -> float:
        """Cosine under which a passage is not read: what was asked for, else what was measured."""
        measured = self.config.min_score
        found = measured if asked is None else asked
        return MIN_SCORE if found is None else found


def untrained(base: str | Path, *, compr_rate: int, doc_max_length: int) -> Checkpoint:
    """A checkpoint without weights of its own: for text mode, for plumbing, for a first training.

    Its memory rows are made from the base alone, so its latents are the same everywhere; they
    carry little meaning.
    """
    config = CheckpointConfig(str(base), compr_rate=compr_rate, doc_max_length=doc_max_length)
    return Checkpoint(config, name=f"untrained-{doc_max_length}x{compr_rate}")


def load(
    path: str | Path, *, base: str | Path | None = None, revision: str | None = None
) -> Checkpoint:
    """Read a checkpoint folder, our own form or the original CLaRa one.

    Args:
        path: folder, or Hub name with sub-folder, such as `owner/model/compression-16`.
        base: folder or Hub name of the base, where the noted one is not to be found.
        revision: branch, tag or commit on the Hub.
    Raises:
        InvalidCheckpoint: a file is missing, damaged or unsafe, or what it holds cannot be right.
        ModelMissing: nothing at `path`.
    """
    folder = local_folder(path, revision=revision)
    noted = None
    if (folder / manifest.NAME).exists():
        noted = manifest.read(folder)
        found = _load_own(folder, noted, base)
    elif (folder / original.CONFIG).exists():
        found = _load_original(folder, base, source=str(path))
    else:
        raise _no_checkpoint(folder)
    _check_roles(found)
    _check_rows(found)
    _check_finite(found)
    if noted is not None:
        manifest.check_mark(found, noted)
    for note in found.notes:
        log.warning("%s: %s", found.name, note)
    return found


def save(checkpoint: Checkpoint, path: Path) -> Path:
    """Write a checkpoint folder in our own form, whole or not at all.

    Raises:
        InvalidCheckpoint: `path` exists; checkpoints are never overwritten.
    """
    content = {
        "adapters.safetensors": _by_role(checkpoint.adapters),
        "rows.safetensors": dict(checkpoint.rows),
    }
    if checkpoint.pooling:
        content[_POOLING] = _by_role(checkpoint.pooling)
    with new_folder(path) as part:
        for name, tensors in content.items():
            own = {
                key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()
            }
            save_file(own, part / name)
        manifest.write(checkpoint, part, content)
    return path


def _by_role(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {
        f"{role}.{key}": tensor for role, group in groups.items() for key, tensor in group.items()
    }


def _split_by_role(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        role, _, rest = key.partition(".")
        groups.setdefault(role, {})[rest] = tensor
    return groups


def _load_own(folder: Path, noted: manifest.Manifest, base: str | Path | None) -> Checkpoint:
    config = _config(noted.config, base)
    adapters, rows = (tensor_file(folder / name, noted.files) for name in _FILES)
    pooling = tensor_file(folder / _POOLING, noted.files) if config.kind == "pooled" else {}
    return Checkpoint(
        config=config,
        adapters=_split_by_role(adapters),
        pooling=_split_by_role(pooling),
        rows=rows,
        trained=noted.trained,
        name=noted.name,
        licence=noted.licence,
        base_hash=noted.base_hash,
        notes=noted.notes,
    )


def _load_original(folder: Path, base: str | Path | None, *, source: str) -> Checkpoint:
    config = _config(original.read_config(folder), base)
    known = original.read_provenance(folder, source=source)
    adapters = original.read_adapters(folder)
    if config.training_stage.startswith("stage2") and "compressor" in adapters:
        adapters.setdefault("reasoner", adapters["compressor"])
    return Checkpoint(
        config=config,
        adapters=adapters,
        rows=original.read_rows(folder),
        trained=True,
        name=known.name,
        licence=known.licence,
        base_hash=known.base_hash,
        notes=known.notes,
    )


def _config(raw: Mapping[str, Any], base: str | Path | None) -> CheckpointConfig:
    names = [entry.name for entry in fields(CheckpointConfig) if entry.name in raw]
    values = {name: raw[name] for name in names}
    if base is not None:
        values["base"] = str(base)
    lacks = [name for name in ("base", "compr_rate", "doc_max_length") if name not in values]
    if lacks:
        raise _invalid(f"the configuration lacks {', '.join(lacks)}", lacks[0])
    return CheckpointConfig(**values)


def tensor_file(path: Path, files: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file, which a manifest names with its hash.

    Raises:
        InvalidCheckpoint: it is missing, damaged, or another file than was noted.
    """
    require(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise damaged(path, error) from error
    noted, found = files.get(path.name), file_hash(path)
    if found != noted:
        why = f"its hash is not the one in manifest.json: expected {noted}, found {found}"
        raise damaged(path, why)
    return tensors


def _no_checkpoint(folder: Path) -> InvalidCheckpoint:
    marks = (manifest.NAME, original.CONFIG)
    below = sorted({path.parent for name in marks for path in folder.glob(f"*/{name}")})
    more = f"; its sub-folders {', '.join(path.name for path in below)} do" if below else ""
    return _invalid(
        f"{folder} holds no checkpoint, neither {marks[0]} nor {marks[1]}{more}",
        str(folder),
        f"Give {below[0]}, or another of them" if below else "Give a checkpoint's own folder",
    )


def _check_roles(checkpoint: Checkpoint) -> None:
    found = set(checkpoint.adapters)
    config = checkpoint.config
    wanted = {"compressor", "generator"} if checkpoint.trained else set()
    if config.kind == "pooled":
        _check_pooling(checkpoint)
        wanted -= {"compressor"}
    for role in sorted(wanted - found):
        raise _invalid(
            f"{checkpoint.name} has no adapter for the {role}", role, "Use a complete checkpoint"
        )
    for role in sorted(found - set(ROLES)):
        known = ", ".join(ROLES)
        raise _invalid(f"{checkpoint.name} has an adapter {role!r}; known are {known}", role)


def _check_pooling(checkpoint: Checkpoint) -> None:
    found = checkpoint.pooling
    if "compressor" not in found:
        raise _invalid(
            f"{checkpoint.name} has no pooling weights for the compressor",
            "compressor",
            "Use a complete checkpoint",
        )
    for role in sorted(found):
        if role not in ("compressor", "reasoner") or set(found[role]) != set(TENSORS):
            keys = ", ".join(sorted(found[role]))
            raise _invalid(f"{checkpoint.name} pools for {role!r} with {keys}", role)


def _check_rows(checkpoint: Checkpoint) -> None:
    added = checkpoint.config.added
    for name, rows in checkpoint.rows.items():
        if rows.dim() != 2 or len(rows) < added:
            raise _invalid(
                f"{name} rows have shape {tuple(rows.shape)}; "
                f"the configuration adds {added} tokens",
                name,
                "Use a complete checkpoint",
            )


def _check_finite(checkpoint: Checkpoint) -> None:
    pooling = {f"{role}.pooling": group for role, group in checkpoint.pooling.items()}
    groups = {**checkpoint.adapters, **pooling, "rows": checkpoint.rows}
    for group, tensors in groups.items():
        for key, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise _invalid(
                    f"{group} {key!r} holds values that are not numbers",
                    f"{group}.{key}",
                    "Use an earlier checkpoint of that training",
                )


def _invalid(message: str, field: str, remedy: str | None = None) -> InvalidCheckpoint:
    return InvalidCheckpoint(message, field=field, remedy=remedy)
