"""What a checkpoint is, in numbers that a person or a program can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clara.model import manifest
from clara.model.checkpoint import Checkpoint, CheckpointConfig
from clara.model.fingerprints import fingerprint


@dataclass(frozen=True)
class Part:
    """Tensors that belong together."""

    tensors: int
    parameters: int
    bytes: int
    """In memory, as stored."""
    dtypes: tuple[str, ...]
    """Without `torch.`, sorted."""
    ranks: tuple[int, ...] = ()
    """Of an adapter: rows of its A matrices, each number once."""


@dataclass(frozen=True)
class Serving:
    """How a checkpoint ranks, reads and refuses: named as in its configuration."""

    reads_text: bool
    prefers_text: bool
    interaction: str
    latent_weight: float | None
    min_score: float | None
    text_refusal_margin: float | None
    refusal_margins: tuple[float, ...]
    """In nats, for each rate; empty where none were measured."""


@dataclass(frozen=True)
class Summary:
    """One checkpoint. Sizes in bytes, lengths in tokens."""

    name: str
    folder: str
    form: str
    """`own` or `original`."""
    kind: str
    stage: str
    trained: bool
    rate: int
    """Tokens per row of a latent, by default."""
    rates: tuple[int, ...]
    doc_max_length: int
    rows_per_latent: int
    """Of the longest passage, at the default rate."""
    separators: bool
    passages_per_answer: int
    lora_r: int
    """As noted; each adapter's own is among its numbers."""
    adapters: Mapping[str, Part]
    pooling: Mapping[str, Part]
    rows: Mapping[str, Part]
    licence: str
    """"" where unknown."""
    notes: tuple[str, ...]
    base: str
    """As noted."""
    base_folder: str | None
    """Where it lies on this machine; None where it is not at hand."""
    base_hash: str | None
    """Of the base at hand, else as noted; None where neither is there."""
    fingerprints: Mapping[str, str]
    """Of latents at the default rate, by the dtype they are computed in; empty without a hash."""
    serving: Serving
    files: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def summarise(
    checkpoint: Checkpoint, folder: Path, *, base: Path | None, base_hash: str | None
) -> Summary:
    """Describe a checkpoint that was loaded from `folder`.

    Args:
        checkpoint: as loaded.
        folder: whose files are listed.
        base: folder of its base, where that is at hand.
        base_hash: of that base, or as noted.
    """
    config = checkpoint.config
    dtypes = () if base_hash is None else (torch.float32, torch.bfloat16)
    return Summary(
        name=checkpoint.name,
        folder=str(folder),
        form=form_of(folder),
        kind=config.kind,
        stage=config.training_stage,
        trained=checkpoint.trained,
        rate=config.compr_rate,
        rates=config.rates,
        doc_max_length=config.doc_max_length,
        rows_per_latent=config.n_mem,
        separators=config.sep,
        passages_per_answer=config.generation_top_k,
        lora_r=config.lora_r,
        adapters={role: _part(found) for role, found in checkpoint.adapters.items()},
        pooling={role: _part(found) for role, found in checkpoint.pooling.items()},
        rows={name: _part({name: rows}) for name, rows in checkpoint.rows.items()},
        licence=checkpoint.licence,
        notes=checkpoint.notes,
        base=config.base,
        base_folder=None if base is None else str(base),
        base_hash=base_hash,
        fingerprints={
            _name(dtype): fingerprint(checkpoint, base_hash or "", dtype=dtype) for dtype in dtypes
        },
        serving=_serving(config),
        files={
            path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()
        },
    )


def form_of(folder: Path) -> str:
    """`own` where the folder has a manifest, else `original`."""
    return "own" if (folder / manifest.NAME).exists() else "original"


def _serving(config: CheckpointConfig) -> Serving:
    return Serving(**{field.name: getattr(config, field.name) for field in fields(Serving)})


def _part(tensors: Mapping[str, Tensor]) -> Part:
    downs = [tensor for key, tensor in tensors.items() if ".lora_A." in key]
    return Part(
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        bytes=sum(tensor.nbytes for tensor in tensors.values()),
        dtypes=tuple(sorted({_name(tensor.dtype) for tensor in tensors.values()})),
        ranks=tuple(sorted({len(tensor) for tensor in downs})),
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
