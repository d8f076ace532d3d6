"""Whether a checkpoint works over its base: from its files' hashes to an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from clara.errors import InvalidCheckpoint
from clara.model.checkpoint import Checkpoint
from clara.model.fit import check_fits, hash_of_base
from clara.model.models import Models, load_models
from clara.model.summary import form_of

SENTENCE = "The wall was built in 1874."
QUESTION = "When was the wall built?"
ANSWER_TOKENS = 16


def verify(
    checkpoint: Checkpoint, folder: Path, base: Path, *, device: str = "auto", cache: Path
) -> Iterator[tuple[str, str]]:
    """Step by step: what was checked, and what was found. The first fault ends it.

    Args:
        checkpoint: as loaded from `folder`, which has checked its files and values already.
        folder: of the checkpoint.
        base: folder of its base.
        device: to compute on.
        cache: folder that remembers hashes of large files.
    Yields:
        The name of a step that went well, and a few words on it.
    Raises:
        ClaraError: whatever is wrong, by name.
    """
    own = form_of(folder) == "own"
    yield "files", "hashes as in manifest.json" if own else "plain tensors, nothing else"
    tensors = _tensors(checkpoint)
    yield "values", f"{sum(t.numel() for t in tensors):,} numbers, all finite"
    hashed = hash_of_base(checkpoint, base, cache=cache)
    noted = "as noted" if checkpoint.base_hash else "the checkpoint notes none"
    yield "base", f"{base}, hash {hashed} ({noted})"
    yield "shapes", f"{check_fits(checkpoint, base)} tensors fit the base"
    models = load_models(checkpoint, base=base, device=device, cache=cache)
    yield "loads", f"on {models.device}, fingerprint {models.fingerprint}"
    yield from _use(models)


def _use(models: Models) -> Iterator[tuple[str, str]]:
    """Compress a sentence and answer from it."""
    [latent] = models.compressor.compress([SENTENCE])
    if not bool(torch.isfinite(latent).all()):
        raise InvalidCheckpoint(
            f"the latent of {SENTENCE!r} holds values that are not numbers",
            field="latent",
            remedy="Compute in float32, or use an earlier checkpoint of that training",
        )
    rows, width = latent.shape
    yield "compresses", f"{SENTENCE!r} to {rows} x {width}"
    made = models.generator.answer_from_latents(QUESTION, [latent], max_new_tokens=ANSWER_TOKENS)
    yield "answers", f"{QUESTION!r} with {len(made.token_ids)} tokens: {made.text!r}"


def _tensors(checkpoint: Checkpoint) -> list[torch.Tensor]:
    groups = [checkpoint.rows, *checkpoint.adapters.values(), *checkpoint.pooling.values()]
    return [tensor for group in groups for tensor in group.values()]
