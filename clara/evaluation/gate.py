"""The gate before a promotion: scored, and not worse than what serves now."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Scores = Mapping[str, Mapping[str, Any]]
"""Numbers by set, as `clara evaluate --json` writes them, or a training's scores on dev records."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number the gate looks at."""

    key: str
    higher: bool
    """Whether more is better."""


METRICS = (Metric("cover_em", True), Metric("recall@5", True), Metric("score", False))
"""Answers and retrieval in fractions, and the loss on dev records in nats per token."""


CONDITIONS = ("mode", "setting", "top_k")
"""Options of an evaluation under which its numbers mean something else."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number of one set that both have."""

    set: str
    metric: str
    candidate: float
    active: float
    worse_by: float
    """Negative where the candidate is better."""
    passed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a checkpoint may be promoted, and why."""

    passed: bool
    reasons: tuple[str, ...]
    """What stands against it; where nothing does, what speaks for it."""
    compared: tuple[Comparison, ...]
    margin: float

    def as_dict(self) -> dict[str, Any]:
        """As it is kept with the checkpoint."""
        return asdict(self) | {
            "reasons": list(self.reasons),
            "compared": [asdict(one) for one in self.compared],
        }


def judge(candidate: Scores, active: Scores | None, *, margin: float) -> Verdict:
    """May a checkpoint take the place of the active one?

    It must have been scored. Where one is active, both must share at least one number, made from
    as many questions under the same conditions, and the candidate may be worse by no more than
    `margin` in any that they share.

    Args:
        candidate: scores of the one to be promoted.
        active: scores of the one that serves; None where none was promoted yet.
        margin: in the unit of each number: fractions, or nats per token.
    """
    scored = dict(_numbers(candidate))
    if not scored:
        return Verdict(False, ("it was never evaluated",), (), margin)
    if active is None:
        return Verdict(True, ("it was evaluated, and none is active",), (), margin)
    known = dict(_numbers(active))
    if not known:
        return Verdict(False, ("the active one was never evaluated",), (), margin)
    compared = tuple(
        _compared(place, scored[place], known[place], margin)
        for place in scored
        if place in known and _alike(candidate[place[0]], active[place[0]])
    )
    if not compared:
        sets = ", ".join(sorted({name for name, _ in known}))
        why = f"the active one was evaluated on other sets or otherwise: {sets}"
        return Verdict(False, (why,), (), margin)
    worse = tuple(_told(one, margin) for one in compared if not one.passed)
    fine = f"not worse by more than {margin:g} in {len(compared)} numbers that both have"
    return Verdict(not worse, worse or (fine,), compared, margin)


def _numbers(scores: Scores) -> Iterator[tuple[tuple[str, Metric], float]]:
    """Every number the gate knows, by set and metric; a NaN is no score."""
    for name, numbers in scores.items():
        for metric in METRICS:
            value = numbers.get(metric.key)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if math.isfinite(value):
                yield (name, metric), float(value)


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether numbers of two sets of one name may be compared, as far as they tell."""
    pairs = [(one.get("n"), other.get("n"))]
    options = [found.get("options") or {} for found in (one, other)]
    pairs += [(options[0].get(name), options[1].get(name)) for name in CONDITIONS]
    return all(a is None or b is None or a == b for a, b in pairs)


def _compared(
    place: tuple[str, Metric], candidate: float, active: float, margin: float
) -> Comparison:
    name, metric = place
    worse_by = active - candidate if metric.higher else candidate - active
    return Comparison(name, metric.key, candidate, active, worse_by, worse_by <= margin)


def _told(one: Comparison, margin: float) -> str:
    return (
        f"{one.metric} on {one.set} is {one.candidate:.4g}, worse than the active one's "
        f"{one.active:.4g} by more than {margin:g}"
    )
