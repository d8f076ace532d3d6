"""What a measurement found: lines for a person, and data for the JSON line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .clock import Times, ratios, spread

NAME = 40
"""Characters of the first column."""


@dataclass
class Report:
    """One table, written line by line."""

    name: str
    """Its key in the line of JSON."""
    title: str
    lines: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """A line of words."""
        self.lines.append(text)

    def figures(self, name: str, values: Sequence[float], unit: str, *, digits: int = 1) -> None:
        """The middle of some figures with the least and the most."""
        found = spread(values)
        shown = f"{found.median:10.{digits}f} {unit:<12}"
        self.say(f"{name:<{NAME}}{shown} ({found.least:.{digits}f} .. {found.most:.{digits}f})")

    def times(self, name: str, values: Sequence[float], *, note: str = "") -> None:
        """Seconds, shown as milliseconds; `note` stands behind the name in the table."""
        self.figures(name + note, [1000 * value for value in values], "ms")
        self.data[f"{name}_ms"] = rounded([1000 * value for value in values])

    def ratio(self, slow: str, fast: str, times: Times, *, target: float | None = None) -> None:
        """How much faster one side was than another, pair by pair, against what is wanted."""
        found = ratios(times[slow], times[fast])
        middle = spread(found)
        name = f"{slow} / {fast}"
        shown = f"{middle.median:10.2f} {'times':<12} ({middle.least:.2f} .. {middle.most:.2f})"
        self.say(f"{name:<{NAME}}{shown}{verdict(middle.median, target)}")
        self.data[name] = rounded(found)


def verdict(found: float, target: float | None) -> str:
    """Whether at least `target` was reached."""
    if target is None:
        return ""
    return f"  target {target:g}: {'met' if found >= target else 'missed'}"


def rounded(values: Sequence[float]) -> list[float]:
    """With four digits that count."""
    return [float(f"{value:.4g}") for value in values]
