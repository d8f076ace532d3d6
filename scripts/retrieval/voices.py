"""What the latents' voice is worth beside words and vectors: every weight on the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from clara.evaluation.retrieval import Found, Method, Order, rows
from clara.evaluation.retrieval_data import Question, SearchSet, read_candidates
from clara.evaluation.retrieval_scores import summary
from clara.retrieval import hybrid

CHOSEN_BY = "ndcg@10"
"""It looks at all gold passages and at their order, and has no cut at the number that is read."""

Latents = Sequence[Mapping[UUID, float]]
"""Cosines of every question's candidates."""


def sample(path: Path, questions: int | None) -> SearchSet:
    """The first questions of a file of candidates, and the passages of these alone."""
    whole = read_candidates(path, limit=questions, own=True)
    among = {passage for asked in whole.questions for passage in asked.among or ()}
    return SearchSet(
        whole.name,
        [passage for passage in whole.passages if passage.id in among],
        [Question(asked.text, asked.grades) for asked in whole.questions],
    )


def by_weight(
    questions: Sequence[Question],
    found: Sequence[Found],
    latents: Latents,
    weights: Sequence[float],
) -> dict[str, dict[str, Any]]:
    """Numbers of the three rankings: by latents, without them, and by all voices, each weight.

    Weights are named as they are written: `0.5`.
    """
    pairs = list(zip(found, latents, strict=True))
    orders = [
        {
            str(Method.FUSED): one.orders[Method.FUSED],
            str(Method.LATENT): _by(cosines),
            **{f"{weight:g}": _by(_fused(one, cosines, weight)) for weight in weights},
        }
        for one, cosines in pairs
    ]
    return {name: summary(each) for name, each in rows(questions, orders).items()}


def best(numbers: Mapping[str, Mapping[str, Any]], weights: Sequence[float]) -> float:
    """The weight that ranks best; of equal ones the smallest."""
    return max(sorted(weights), key=lambda weight: numbers[f"{weight:g}"][CHOSEN_BY])


def _fused(one: Found, cosines: Mapping[UUID, float], weight: float) -> dict[UUID, float]:
    return hybrid.fuse(one.candidates, one.cosines, cosines, weight=weight)


def _by(scores: Mapping[UUID, float]) -> Order:
    return sorted(scores, key=lambda passage: -scores[passage])
