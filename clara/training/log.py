"""The log of a training: a line per step and per score, and the curves out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clara.training.loop import Step
from clara.training.state import Progress, explained

NAME = "log.jsonl"


class Log:
    """Appends to `log.jsonl` in a training's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def step(self, step: Step, progress: Progress) -> None:
        """A step that was done."""
        self._write({**asdict(step), "at": round(progress.seconds, 2)})

    def score(self, scores: Mapping[str, float], progress: Progress) -> None:
        """Dev scores."""
        found = {"scored": progress.step, "at": round(progress.seconds, 2), **scores}
        self._write(found)

    def _write(self, entry: Mapping[str, Any]) -> None:
        with explained(self._folder), (self._folder / NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
