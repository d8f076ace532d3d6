"""A question's candidate, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from clara.pipeline.record import Read
from clara.types import Fate


@dataclass(frozen=True)
class Considered:
    """A candidate and what became of it."""

    read: Read
    fate: Fate
    cosine: float | None = None
    """Of the sentence encoder, where it had a voice in the ranking or in refusing."""
    latent: float | None = None
    """Cosine of latents, where they had one."""
