"""Candidates in order, by every ranker at hand, and the ones that are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clara.evaluation.datasets import Record
from clara.evaluation.options import Options, Ranker, Setting

Order = tuple[int, ...]
"""Indices into a record's docs, best first."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """One record's candidates."""

    scores: Mapping[Ranker, tuple[float, ...]]
    """By candidate, in each ranker's own unit; every ranker that scored this record."""
    order: Order
    """All candidates as they would be read: by the ranker in effect, gold ones first if oracle."""
    selected: Order
    """Those that are read."""

    def by(self, ranker: Ranker) -> Order:
        """All candidates in the order of one ranker alone."""
        return best_first(self.scores[ranker])


def rank(
    record: Record,
    scores: Mapping[Ranker, Sequence[float]],
    ranker: Ranker,
    options: Options,
) -> Ranking:
    """Put a record's candidates in order and choose.

    Args:
        record: its gold passages count where the setting is not the normal one.
        scores: one per candidate, for every ranker but `given`.
        ranker: the one in effect.
        options: setting and `top_k`.
    """
    order = best_first(scores[ranker]) if ranker in scores else tuple(range(len(record.docs)))
    gold = set(record.pos_index)
    if options.setting is Setting.ORACLE:
        order = tuple(sorted(order, key=lambda index: index not in gold))
    may = [i for i in order if i not in gold] if options.setting is Setting.WITHHELD else order
    kept = {name: tuple(values) for name, values in scores.items()}
    return Ranking(kept, order, tuple(may[: options.top_k]))


def best_first(scores: Sequence[float]) -> Order:
    """Indices from the highest score to the lowest; equal ones in the order of the file."""
    return tuple(sorted(range(len(scores)), key=lambda index: (-scores[index], index)))
