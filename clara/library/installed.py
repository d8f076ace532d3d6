"""The models of this installation: what its settings name, else the default ones."""

from __future__ import annotations

from pathlib import Path

import torch

from clara.default_models import (
    BASE,
    SENTENCE_ENCODER,
    chosen_answerability,
    chosen_checkpoint,
    folder_of,
    is_there,
)
from clara.library.loading import open_models
from clara.model.checkpoint import untrained
from clara.model.models import Models, load_models
from clara.settings import Settings, settings


def installed_models(
    *,
    base: str | Path | None = None,
    rate: int | None = None,
    doc_max_length: int | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
) -> Models:
    """The checkpoint that this installation answers with, or an untrained one over its base.

    Args:
        base: folder or Hub name of the base; that of the settings where None.
        rate: tokens per row of a latent; that of the checkpoint, or of the settings, where None.
        doc_max_length: longest passage of an untrained checkpoint; of the settings where None.
        device: see `CLaRa.from_pretrained`.
        dtype: see there.
    Raises:
        ModelMissing: no base is named and the default one was not fetched.
        InvalidCheckpoint: the checkpoint of the settings has another rate.
    """
    config = settings()
    own = base is None  # the shipped checkpoint belongs to the default base
    base, cache = base or _base(config), config.home / "hashes"
    chosen = chosen_checkpoint(config) if own else config.checkpoint
    if chosen:
        return open_models(chosen, base=base, rate=rate, device=device, dtype=dtype, cache=cache)
    fresh = untrained(
        base,
        compr_rate=rate or config.compression_rate,
        doc_max_length=doc_max_length or config.doc_max_length,
    )
    return load_models(fresh, device=device, dtype=dtype, cache=cache)


def has_default_encoder() -> bool:
    """Whether this installation's sentence encoder is the default one."""
    return not settings().sentence_encoder


def installed_encoder() -> str | Path | None:
    """The sentence encoder of this installation; None where there is none."""
    config = settings()
    if config.sentence_encoder:
        return config.sentence_encoder
    there = is_there(SENTENCE_ENCODER, config.models)
    return config.models / SENTENCE_ENCODER.folder if there else None


def installed_answerability() -> Path | None:
    """The adapter with which that encoder reads pairs; None where there is none."""
    return chosen_answerability(settings())


def _base(config: Settings) -> str | Path:
    if config.base_model:
        return config.base_model
    return folder_of(BASE, config.models, field="compression_model")
