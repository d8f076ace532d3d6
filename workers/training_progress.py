"""How far a training is, out of the events of its log."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from clara.training.curves import left_s
from clara.training.events import Event

WINDOW = 20
"""Steps that speed is averaged over."""

_NO_SCORES = ("scored", "at", "best")


class Pace:
    """Keeps the last steps, and says what they tell."""

    def __init__(self, known: Mapping[str, Any], *, done: int = 0, steps: int = 0) -> None:
        """Begin where an earlier attempt ended: with its details and its progress."""
        self.done, self.steps = done, steps
        self._last: deque[Event] = deque(maxlen=WINDOW)
        self._details = dict(known)

    def note(self, event: Event) -> None:
        """Take in a start, a step or scores."""
        if "begun" in event:
            self.done, self.steps = int(event["begun"]), int(event["of"])
            self._last.clear()
            self._details |= {name: event[name] for name in ("device", "dtype", "records", "dev")}
        elif "scored" in event:
            scores = {name: value for name, value in event.items() if name not in _NO_SCORES}
            self._details["scores"] = {"step": event["scored"], **scores}
        else:
            self.done = int(event["number"])
            self._last.append(event)
            self._details |= {
                "loss": event["loss"],
                "parts": dict(event["parts"]),
                "learning_rate": event["rate"],
                "tokens_per_s": self._tokens_per_s(),
                "seconds": event["at"],
                "seconds_left": left_s(event),
            }

    def details(self) -> dict[str, Any]:
        """As the run keeps it."""
        return dict(self._details)

    def _tokens_per_s(self) -> float:
        seconds = sum(event["seconds"] for event in self._last)
        places = sum(event["places"] for event in self._last)
        return round(float(places / max(seconds, 1e-9)), 1)
