"""Checkpoints: load, save, and refuse what is incomplete or does not match."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clara.errors import InvalidCheckpoint
from clara.model import original
from clara.model.backbone import local_folder
from clara.model.fingerprints import file_hash
from clara.model.lora import Adapter

ROLES = ("compressor", "reasoner", "generator")
"""Who an adapter is for. A trained checkpoint without a reasoner uses the compressor's."""

KINDS = ("memory", "pooled")
"""How latents are made: memory tokens as published, or weighted means over windows."""

STAGES = ("untrained", "stage1", "stage1_2", "stage2", "stage2_reasoning")

FORMAT = 1
"""Version of the folder form written by `save`."""

_FILES = ("adapters.safetensors", "rows.safetensors")
_POOLING = "pooling.safetensors"
"""Only in checkpoints of the pooled kind."""


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
    contextual: bool = False
    """Whether pooled latents hold contextual states too."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(self.rates) or (self.compr_rate,))  # JSON has lists
        self._check_kind()
        for name in ("compr_rate", "doc_max_length", "lora_r", "generation_top_k"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise _invalid(f"{name} must be a whole number from 1 on, got {value!r}", name)
        if self.training_stage not in STAGES:
            known = ", ".join(STAGES)
            raise _invalid(
                f"training_stage is {self.training_stage!r}; known are {known}", "training_stage"
            )
        if self.doc_max_length % self.compr_rate and not self.floor_rows:
            raise _invalid(
                f"doc_max_length {self.doc_max_length} is not a multiple of "
                f"compr_rate {self.compr_rate}",
                "doc_max_length",
                "Choose a rate that divides the length",
            )
        if self.n_mem < 1:
            raise _invalid(
                f"compr_rate {self.compr_rate} leaves no memory token for "
                f"{self.doc_max_length} tokens",
                "compr_rate",
            )

    def _check_kind(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise _invalid(f"kind is {self.kind!r}; known are {known}", "kind")
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
    def added(self) -> int:
        """Rows behind the base's own: memory tokens, `<AE>`, `<ENC>`, `<SEP>`, `<KBTC>`."""
        return (self.n_mem if self.different_mem_tokens else 1) + 3 + self.kbtc_training

    def numbers(self) -> dict[str, Any]:
        """Every field that changes an answer, so not where the base lies."""
        return {key: value for key, value in asdict(self).items() if key != "base"}


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
    """By role, for the pooled kind: what `clara.model.pooled.Pooling` holds."""

    def at_rate(self, rate: int) -> Checkpoint:
        """The same weights, used at another of the rates they were trained for.

        Raises:
            InvalidCheckpoint: none of its rates; the message names them.
        """
        return replace(self, config=replace(self.config, compr_rate=rate))


def untrained(base: str | Path, *, compr_rate: int, doc_max_length: int) -> Checkpoint:
    """A checkpoint without weights of its own: for text mode, for plumbing, for a first training.

    Its memory rows are made from the base alone, so its latents are the same everywhere; they
    carry little meaning.
    """
    config = CheckpointConfig(str(base), compr_rate=compr_rate, doc_max_length=doc_max_length)
    return Checkpoint(config, name=f"untrained-{doc_max_length}x{compr_rate}")


def load(path: str | Path, *, base: str | Path | None = None) -> Checkpoint:
    """Read a checkpoint folder, our own form or the original CLaRa one.

    Args:
        path: folder, or Hub name with sub-folder, such as `owner/model/compression-16`.
        base: folder or Hub name of the base, where the noted one is not to be found.
    Raises:
        InvalidCheckpoint: a file is missing, damaged or unsafe, or what it holds cannot be right.
        ModelMissing: nothing at `path`.
    """
    folder = local_folder(path)
    if (folder / "manifest.json").exists():
        found = _load_own(folder, base)
    else:
        found = _load_original(folder, base, licence=original.licence_of(str(path)))
    _check_roles(found)
    _check_finite(found)
    return found


def save(checkpoint: Checkpoint, path: Path) -> Path:
    """Write a checkpoint folder in our own form, whole or not at all.

    Raises:
        InvalidCheckpoint: `path` exists; checkpoints are never overwritten.
    """
    if path.exists():
        raise _invalid(f"{path} exists already", str(path), "Choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name}.{uuid4().hex}.part"
    part.mkdir()
    try:
        content = {
            "adapters.safetensors": _by_role(checkpoint.adapters),
            "rows.safetensors": dict(checkpoint.rows),
        }
        if checkpoint.pooling:
            content[_POOLING] = _by_role(checkpoint.pooling)
        for name, tensors in content.items():
            own = {
                key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()
            }
            save_file(own, part / name)
        (part / "manifest.json").write_text(
            json.dumps(_manifest(checkpoint, part, content), indent=2) + "\n"
        )
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
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


def _manifest(checkpoint: Checkpoint, folder: Path, files: Iterable[str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": checkpoint.name,
        "licence": checkpoint.licence,
        "trained": checkpoint.trained,
        "base_hash": checkpoint.base_hash,
        "config": asdict(checkpoint.config),
        "files": {name: file_hash(folder / name) for name in files},
    }


def _load_own(folder: Path, base: str | Path | None) -> Checkpoint:
    manifest = original.read_json(folder / "manifest.json")
    if manifest.get("format") != FORMAT:
        raise _invalid(
            f"{folder} has format {manifest.get('format')!r}; this release reads {FORMAT}",
            "format",
            "Use a release that knows this format",
        )
    config = _config(manifest.get("config"), base)
    adapters, rows = (_tensor_file(folder / name, manifest) for name in _FILES)
    pooling = _tensor_file(folder / _POOLING, manifest) if config.kind == "pooled" else {}
    return Checkpoint(
        config=config,
        adapters=_split_by_role(adapters),
        pooling=_split_by_role(pooling),
        rows=rows,
        trained=bool(manifest.get("trained")),
        name=str(manifest.get("name", folder.name)),
        licence=str(manifest.get("licence", "")),
        base_hash=manifest.get("base_hash"),
    )


def _load_original(folder: Path, base: str | Path | None, *, licence: str) -> Checkpoint:
    raw = original.read_config(folder)
    config = _config(raw, base)
    adapters = original.read_adapters(folder)
    if config.training_stage.startswith("stage2") and "compressor" in adapters:
        adapters.setdefault("reasoner", adapters["compressor"])
    return Checkpoint(
        config=config,
        adapters=adapters,
        rows=original.read_rows(folder),
        trained=True,
        name=folder.name,
        licence=licence,
    )


def _config(raw: object, base: str | Path | None) -> CheckpointConfig:
    known = {entry.name for entry in fields(CheckpointConfig)}
    values = {
        key: value for key, value in (raw if isinstance(raw, dict) else {}).items() if key in known
    }
    if base is not None:
        values["base"] = str(base)
    try:
        return CheckpointConfig(**values)
    except TypeError as error:
        raise _invalid(f"the configuration is incomplete: {error}", "config") from error


def _tensor_file(path: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    original.require(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise original.damaged(path, error) from error
    if file_hash(path) != manifest.get("files", {}).get(path.name):
        raise original.damaged(path, "its hash is not the one in manifest.json")
    return tensors


def _check_roles(checkpoint: Checkpoint) -> None:
    found = set(checkpoint.adapters)
    config = checkpoint.config
    wanted = {"compressor", "generator"} if checkpoint.trained else set()
    if config.kind == "pooled":
        _check_pooling(checkpoint)
        wanted -= {"compressor"} if not config.contextual else set()
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
        if role not in ("compressor", "reasoner") or set(found[role]) != {"weights", "gate"}:
            keys = ", ".join(sorted(found[role]))
            raise _invalid(f"{checkpoint.name} pools for {role!r} with {keys}", role)


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
