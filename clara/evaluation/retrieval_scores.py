"""How good a ranking of passages is: Recall, MRR and nDCG of one question, and their means."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any
from uuid import UUID

from clara.evaluation.metrics import intervals, mean, recall

CUTS = (1, 3, 5, 25, 37)
"""The k of Recall@k: 25 and 37 are what BM25 gives, and both retrievers together."""

DEPTH = 10
"""Ranks that MRR and nDCG look at."""


def scores(ranking: Sequence[UUID], grades: Mapping[UUID, float]) -> dict[str, float]:
    """Of one question: `recall@k` for every k of CUTS, `mrr@10`, `ndcg@10`, all in [0, 1].

    Args:
        ranking: different passages, best first.
        grades: of the passages that answer the question; one of 0 or less does not.
    """
    gold = frozenset(passage for passage, grade in grades.items() if grade > 0)
    return {
        **{f"recall@{k}": recall(ranking, gold, k) for k in CUTS},
        f"mrr@{DEPTH}": reciprocal_rank(ranking, gold, DEPTH),
        f"ndcg@{DEPTH}": ndcg(ranking, grades, DEPTH),
    }


def reciprocal_rank(ranking: Sequence[Hashable], positives: Collection[Hashable], k: int) -> float:
    """1 / the rank of the first positive, counted from 1; 0 where none is among the first k."""
    ranks = (rank for rank, found in enumerate(ranking[:k], start=1) if found in positives)
    return 1 / next(ranks, math.inf)


def ndcg(ranking: Sequence[UUID], grades: Mapping[UUID, float], k: int) -> float:
    """Discounted gain of the first k, as a share of the most that k passages can have.

    The gain is the grade itself and the discount log2(rank + 1), as trec_eval has them, whose
    numbers BEIR reports.
    """
    most = _discounted(sorted(grades.values(), reverse=True)[:k])
    return _discounted([grades.get(found, 0.0) for found in ranking[:k]]) / most if most else 0.0


def _discounted(gains: Sequence[float]) -> float:
    return sum(max(gain, 0.0) / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def summary(rows: Sequence[Mapping[str, float]], *, seed: int = 0) -> dict[str, Any]:
    """Means of the scores of questions with 95 % bootstrap intervals, and `n`, how many there are.

    The questions drawn depend on `seed` and their number alone, so that two methods are compared on
    the same samples.
    """
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    return {
        **{name: mean(values) for name, values in columns.items()},
        "n": len(rows),
        "intervals": {name: list(ends) for name, ends in intervals(columns, seed=seed).items()},
    }
