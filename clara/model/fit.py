"""Whether a checkpoint fits a base, told from names and shapes before any weight is loaded."""

from __future__ import annotations

from pathlib import Path

from clara.errors import CheckpointMismatch
from clara.model.backbone import check_rows
from clara.model.checkpoint import Checkpoint
from clara.model.fingerprints import base_hash
from clara.model.lora import block_linears, check
from clara.model.pooled import check_pooling
from clara.model.rows import outline


def check_fits(checkpoint: Checkpoint, folder: Path) -> int:
    """Compare every tensor of a checkpoint with the base in `folder`.

    Returns:
        Tensors compared.
    Raises:
        InvalidCheckpoint: one is missing, has no place in the base, or has another shape; or the
            base's configuration or tokenizer is unusable.
    """
    backbone = outline(checkpoint, folder)
    check_rows(backbone, checkpoint.rows)
    linears = block_linears(backbone.model)
    for role, adapter in checkpoint.adapters.items():
        check(linears, adapter, role)
    for role, kept in checkpoint.pooling.items():
        check_pooling(kept, role, vocabulary=backbone.tokens.size, width=backbone.width)
    groups = [checkpoint.rows, *checkpoint.adapters.values(), *checkpoint.pooling.values()]
    return sum(len(tensors) for tensors in groups)


def hash_of_base(checkpoint: Checkpoint, folder: Path, *, cache: Path | None = None) -> str:
    """Hash of the base in `folder`, which must be the one the checkpoint was trained on.

    Raises:
        CheckpointMismatch: the checkpoint notes another hash.
        InvalidCheckpoint: the folder holds no base.
    """
    hashed = base_hash(folder, cache=cache)
    if checkpoint.base_hash not in (None, hashed):
        raise CheckpointMismatch(
            f"{checkpoint.name} was trained on base {checkpoint.base_hash}; {folder} is {hashed}",
            field="base",
            remedy="Give the base it was trained on",
        )
    return hashed
