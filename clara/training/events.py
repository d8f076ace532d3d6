"""The log of a training as it is read: live, by whoever started it, or later, as curves.

`log.jsonl` has one JSON object a line, of one of three kinds:

* `begun`: steps done when the training started or went on, with `of` (its steps), `pid`,
  `processes`, `device`, `dtype`, `records`, `dev`.
* `number`: a step that was done, with `loss`, `parts`, `rate`, `gradient`, `places`, `seconds` and
  `share` (of the whole training).
* `scored`: steps done when the dev records were scored, with `score`, `wrong` (not where ranking
  alone learns), further scores and `best`.

All have `at`: seconds spent in steps. After a kill the same steps come again; the later ones count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

NAME = "log.jsonl"

Event: TypeAlias = Mapping[str, Any]
"""One line of a training's log."""


class Tail:
    """What was added to a log since it was last asked; a line half written waits for its end."""

    def __init__(self, folder: Path, *, whole: bool = False) -> None:
        """From the log's end on, or from its beginning where `whole`."""
        self._path = folder / NAME
        self._at = 0 if whole or not self._path.exists() else self._path.stat().st_size

    def new(self) -> list[Event]:
        """Events in their order; lines that a kill cut off are left out."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._at += len(whole)
        return list(_parsed(whole.splitlines()))


def events(folder: Path) -> list[Event]:
    """Everything a training's log holds."""
    return Tail(folder, whole=True).new()


def standing(found: Iterable[Event]) -> list[Event]:
    """Events without those that were undone: what came after the state a resumption began from."""
    kept: list[Event] = []
    for event in found:
        if "begun" in event:
            kept = [old for old in kept if "begun" in old or _step_of(old) <= event["begun"]]
        kept.append(event)
    return kept


def _step_of(event: Event) -> int:
    return int(event.get("number", event.get("scored", 0)))


def _parsed(lines: Iterable[bytes]) -> Iterator[Event]:
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found
