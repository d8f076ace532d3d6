"""Checkpoint folders in the form of the published CLaRa models: read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clara.errors import InvalidCheckpoint
from clara.model.files import damaged, new_folder, read_json, shown, typed
from clara.model.pickled import read_pickled, tensor_of
from clara.model.rows import whole_rows

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint

CONFIG = "config.json"
ADAPTERS = "adapters.pth"
ROWS = "decoder_first_last_layers.pth"
MODEL_TYPE = "CLaRa"

_ROLES = {
    "encoder_adapter": "compressor",
    "query_reasoner_adapter": "reasoner",
    "decoder_adapter": "generator",
}
_ROW_KEYS = {"embed_tokens.weight": "embed", "lm_head.weight": "head"}
_LORA_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<path>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight$"
)
FIELDS = (
    "compr_rate",
    "doc_max_length",
    "sep",
    "different_mem_tokens",
    "lora_r",
    "generation_top_k",
    "training_stage",
    "kbtc_training",
)
"""Fields that mean the same, under the same name, in `CheckpointConfig`."""

_NEEDED = ("compr_rate", "doc_max_length", "sep", "different_mem_tokens", "training_stage")
"""Those whose default would change numbers without a word."""

_PROVENANCE = "provenance"
"""Our own field among theirs, which readers of that form pass over."""

_QUANTIZATIONS = ("no", "int4", "int8")


@dataclass(frozen=True)
class Provenance:
    """What a folder says of a checkpoint apart from its numbers."""

    name: str
    licence: str
    base_hash: str | None
    notes: tuple[str, ...]


def read_config(folder: Path) -> dict[str, Any]:
    """Fields of config.json under our names. Those without effect on the numbers are left out.

    Raises:
        InvalidCheckpoint: the file is missing or damaged, or belongs to another kind of model.
    """
    path = folder / CONFIG
    raw = read_json(path)
    if raw.get("model_type") != MODEL_TYPE:
        raise InvalidCheckpoint(
            f"{path} describes a model of type {shown(raw.get('model_type'))}; "
            f"a checkpoint's is {MODEL_TYPE!r}",
            field="model_type",
            remedy="Give the folder of the checkpoint; a base model is named apart from it",
        )
    lacks = [name for name in _NEEDED if raw.get(name) is None]
    if lacks:
        raise damaged(path, f"it lacks {', '.join(lacks)}")
    found = {name: raw[name] for name in FIELDS if name in raw}
    found["base"] = typed(raw, "decoder_model_name", str, path, "")
    rate, length = found["compr_rate"], found["doc_max_length"]
    if isinstance(rate, int) and isinstance(length, int) and rate > 0:
        found["floor_rows"] = length % rate != 0
    return found


def read_provenance(folder: Path, *, source: str) -> Provenance:
    """Name, licence and what else is known of a folder.

    Args:
        folder: of the checkpoint.
        source: folder or Hub name it was asked for by, which tells published models.
    """
    path = folder / CONFIG
    raw = read_json(path)
    ours = typed(raw, _PROVENANCE, dict, path, {})
    notes = [*typed(ours, "notes", list, path, []), *_quantization_note(raw)]
    return Provenance(
        name=typed(ours, "name", str, path, folder.name),
        licence=typed(ours, "licence", str, path, "") or licence_of(source),
        base_hash=typed(ours, "base_hash", str, path, "") or None,
        notes=tuple(str(note) for note in notes),
    )


def read_adapters(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Adapters by role. Embedding and head copies among them are left out.

    Raises:
        InvalidCheckpoint: the file is missing, damaged, holds code, or an unknown key.
    """
    path = folder / ADAPTERS
    return {
        _ROLES.get(name, name): _lora_only(tensors, path)
        for name, tensors in read_pickled(path).items()
    }


def read_rows(folder: Path) -> dict[str, Tensor]:
    """`embed` and, where the base is not tied, `head`: all rows, with the added tokens'."""
    path = folder / ROWS
    rows = {}
    for key, value in read_pickled(path).items():
        name = next((ours for end, ours in _ROW_KEYS.items() if key.endswith(end)), None)
        if name is None:
            raise damaged(path, f"it holds the unknown key {key!r}")
        rows[name] = tensor_of(value, key, path)
    if "embed" not in rows:
        raise damaged(path, "it holds no embedding")
    return rows


def licence_of(name: str) -> str:
    """Licence of a published checkpoint by its Hub name, or by its place in the Hub's cache.

    "" where we cannot know.
    """
    published = name.startswith("apple/CLaRa-") or "models--apple--CLaRa-" in name
    return "apple-amlr (research only)" if published else ""


def write(
    checkpoint: Checkpoint, folder: Path, *, base: Path, dtype: torch.dtype | None = torch.bfloat16
) -> Path:
    """Write a checkpoint in this form, whole or not at all.

    The original code's own class reads it; its Python files are not part of what is written.
    `pure_inference` is set, since that class loads all adapters only then.

    Args:
        checkpoint: trained, of the memory kind.
        folder: must not exist.
        base: the base's folder, whose embedding and head the form repeats.
        dtype: of every tensor, bfloat16 as in the published models; None keeps what they have.
    Returns:
        `folder`.
    Raises:
        InvalidCheckpoint: `folder` exists, the checkpoint cannot be told in this form, or it does
            not fit the base.
    """
    _check_writable(checkpoint)
    names = {ours: theirs for theirs, ours in _ROLES.items()}
    keys = {"embed": "model.embed_tokens.weight", "head": "lm_head.weight"}
    whole = whole_rows(checkpoint, base)
    rows = {keys[name]: _stored(found, dtype) for name, found in whole.items()}
    adapters = {
        names[role]: {key: _stored(tensor, dtype) for key, tensor in adapter.items()}
        for role, adapter in checkpoint.adapters.items()
    }
    with new_folder(folder) as part:
        torch.save(adapters, part / ADAPTERS)
        torch.save(rows, part / ROWS)
        content = json.dumps(_config(checkpoint, base), indent=2, sort_keys=True) + "\n"
        (part / CONFIG).write_text(content, encoding="utf-8")
    return folder


def rounds(checkpoint: Checkpoint, base: Path, dtype: torch.dtype) -> bool:
    """Whether `write` in `dtype` changes a value, of the checkpoint or of the base's rows."""
    groups = [*checkpoint.adapters.values(), whole_rows(checkpoint, base)]
    return any(
        not torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)
        for tensors in groups
        for tensor in tensors.values()
    )


def _config(checkpoint: Checkpoint, base: Path) -> dict[str, Any]:
    config = checkpoint.config
    return {
        "model_type": MODEL_TYPE,
        "decoder_model_name": config.base or str(base),
        **{name: getattr(config, name) for name in FIELDS},
        "optimize_mem_tokens": True,
        "quantization": "no",
        "training_form": "both_separately",
        "load_adapters": True,
        "lora": True,
        "pure_inference": True,
        _PROVENANCE: {
            "name": checkpoint.name,
            "licence": checkpoint.licence,
            "base_hash": checkpoint.base_hash,
            "notes": list(checkpoint.notes),
        },
    }


def _check_writable(checkpoint: Checkpoint) -> None:
    if checkpoint.config.kind != "memory":
        raise InvalidCheckpoint(
            f"{checkpoint.name} is of the {checkpoint.config.kind} kind; the original form holds "
            "memory tokens only",
            field="kind",
            remedy="Keep it in our own form",
        )
    for role in ("compressor", "generator"):
        if role not in checkpoint.adapters:
            raise InvalidCheckpoint(
                f"{checkpoint.name} has no adapter for the {role}, which the original form needs",
                field=role,
                remedy="Train it first",
            )


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor of its own: a view would be saved with all it is a view of."""
    return tensor.detach().to("cpu", dtype or tensor.dtype).contiguous().clone()


def _quantization_note(raw: Mapping[str, Any]) -> list[str]:
    """What to say of weights that were trained beside a quantised base."""
    found = raw.get("quantization") or "no"
    if found not in _QUANTIZATIONS:
        raise InvalidCheckpoint(
            f"quantization is {shown(found)}; known are {', '.join(_QUANTIZATIONS)}",
            field="quantization",
        )
    if found == "no":
        return []
    return [f"trained beside a base in {found}; used here beside the base's own weights"]


def _lora_only(tensors: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(tensors, dict):
        raise damaged(path, "an adapter in it is no dictionary")
    found = {}
    for key, value in tensors.items():
        match = _LORA_KEY.match(str(key))
        if match:
            found[f"{match['path']}.lora_{match['side']}.weight"] = tensor_of(value, key, path)
        elif not str(key).endswith(tuple(_ROW_KEYS)):
            raise damaged(path, f"it holds the unknown key {key!r}")
    return found
