"""How far a training is, and what came out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Spent in steps, over all resumptions."""
    tokens: int = 0
    """Token places that went through the model."""
    skipped: int = 0
    """Records that left nothing to learn from."""
    best: float | None = None
    """Best dev score so far; lower is better."""
    best_step: int | None = None
    worse: int = 0
    """Scores since the best one."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """Dev scores by step."""


@dataclass(frozen=True)
class Trained:
    """What came out."""

    last: Path
    """Folder of the last checkpoint."""
    best: Path
    """Folder of the one with the best dev score; the last where none was scored."""
    progress: Progress


def checkpoints_in(out: Path) -> Path:
    """Folder of a training's checkpoints, `best` and `last`."""
    return out / "checkpoints"


def trained_in(out: Path, progress: Progress) -> Trained:
    """What a training that came to its end left in its folder."""
    last, best = checkpoints_in(out) / "last", checkpoints_in(out) / "best"
    return Trained(last, best if best.exists() else last, progress)
