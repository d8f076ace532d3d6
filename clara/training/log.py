"""The log of a training as it is written: a line per start, step and score; `events` reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clara.training.disk import explained
from clara.training.events import NAME, Event
from clara.training.loop import Step
from clara.training.progress import Progress


class Log:
    """Appends to `log.jsonl` in a training's folder.

    Args:
        folder: of the training.
        tell: told every event that was written.
    """

    def __init__(self, folder: Path, tell: Callable[[Event], None] = lambda _: None) -> None:
        self._folder, self._tell = folder, tell

    def begin(self, progress: Progress, **about: Any) -> None:
        """The training starts, or goes on, behind a step; later ones in the log do not count."""
        self._end_line()
        self._write({"begun": progress.step, "at": round(progress.seconds, 2), **about})

    def step(self, step: Step, progress: Progress, share: float | None = None) -> None:
        """A step that was done; `share` of the whole training lies behind it."""
        done = {} if share is None else {"share": round(share, 6)}
        self._write({**asdict(step), "at": round(progress.seconds, 2), **done})

    def score(self, scores: Mapping[str, float], progress: Progress, best: bool = False) -> None:
        """Dev scores, and whether they are the best so far."""
        at = round(progress.seconds, 2)
        self._write({"scored": progress.step, "at": at, **scores, "best": best})

    def _end_line(self) -> None:
        """A line that a kill cut off does not take the next one with it."""
        path = self._folder / NAME
        if not path.exists() or path.stat().st_size == 0:
            return
        with explained(self._folder), path.open("rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")

    def _write(self, entry: Event) -> None:
        with explained(self._folder), (self._folder / NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._tell(entry)
