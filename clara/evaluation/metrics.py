"""Scores of answers and rankings: the original CLaRa scorer's, and the same over all aliases."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CUTS = (1, 3, 5)
"""The k of Recall@k and Precision@k."""

DRAWS = 2_000
"""Bootstrap samples; the ends of an interval then move by a few thousandths between seeds."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BOOLEANS = {"True": "yes", "False": "no"}
_VERDICTS = ("yes", "no", "noanswer")
"""Answers that earn no F1 from a partial match."""


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """One answer against one gold answer."""

    em: bool
    """Equal after normalising."""
    cover_em: bool
    """Every gold token occurs in the answer, in any order and number; the original's `acc`."""
    f1: float
    """Of the two bags of tokens, in [0, 1]."""


def normalise(answer: str) -> str:
    """What is compared: lower case, without ASCII punctuation and articles, single spaces.

    Only the exact strings `True` and `False` become yes and no. A word that punctuation splits
    (`New-York`) is joined, as in the original.
    """
    text = _BOOLEANS.get(answer, answer).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def score_answer(prediction: str, gold: str) -> AnswerScore:
    """Score an answer as the original does.

    An empty gold answer, such as `the` after normalising, is covered by anything and has F1 0.
    """
    found, wanted = normalise(prediction), normalise(gold)
    tokens = set(found.split())
    return AnswerScore(
        em=found == wanted,
        cover_em=all(token in tokens for token in wanted.split()),
        f1=_f1(found, wanted),
    )


def best_score(prediction: str, golds: Iterable[str]) -> AnswerScore:
    """The best of each score over all aliases; each may come from another alias."""
    scores = [score_answer(prediction, gold) for gold in golds]
    return AnswerScore(
        em=any(score.em for score in scores),
        cover_em=any(score.cover_em for score in scores),
        f1=max((score.f1 for score in scores), default=0.0),
    )


def _f1(found: str, wanted: str) -> float:
    if found != wanted and (found in _VERDICTS or wanted in _VERDICTS):
        return 0.0
    mine, gold = found.split(), wanted.split()
    common = sum((Counter(mine) & Counter(gold)).values())
    if not common:
        return 0.0
    precision, recall = common / len(mine), common / len(gold)
    return (2 * precision * recall) / (precision + recall)


def recall(ranking: Sequence[Hashable], positives: Collection[Hashable], k: int) -> float:
    """Share of the positives among the first k; 0 where there are none."""
    hits = len(set(ranking[:k]) & set(positives))
    return hits / len(positives) if positives else 0.0


def precision(ranking: Sequence[int], positives: Collection[int], k: int) -> float:
    """Positives among the first k, divided by k, also where fewer were ranked."""
    return len(set(ranking[:k]) & set(positives)) / k


def words(answer: str) -> int:
    """Length of an answer: its parts between white space."""
    return len(answer.split())


def mean(values: Iterable[float]) -> float:
    """Plain mean; 0 of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def answer_means(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Means over (prediction, gold): em, cover_em, f1 and avg_answer_words."""
    scores = [score_answer(prediction, gold) for prediction, gold in pairs]
    return {
        "em": mean(score.em for score in scores),
        "cover_em": mean(score.cover_em for score in scores),
        "f1": mean(score.f1 for score in scores),
        "avg_answer_words": mean(words(prediction) for prediction, _ in pairs),
    }


def retrieval_means(
    ranked: Sequence[tuple[Sequence[int], Collection[int]]], *, only_with_positives: bool = False
) -> dict[str, float]:
    """Means over (ranking, positives): `recall@k` and `precision@k` for every k of CUTS.

    Args:
        ranked: passage indices, best first, and those that are gold.
        only_with_positives: leave out questions without a gold passage, as the original's trainer
            does; its scorer counts them as 0.
    """
    counted = [row for row in ranked if row[1] or not only_with_positives]
    measures: Mapping[str, Callable[..., float]] = {"recall": recall, "precision": precision}
    return {
        f"{name}@{k}": mean(measure(ranking, positives, k) for ranking, positives in counted)
        for name, measure in measures.items()
        for k in CUTS
    }


def intervals(
    columns: Mapping[str, Sequence[float]],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of means; all columns are drawn together, row by row.

    Args:
        columns: one value per question under each name, all of one length.
        seed: of the draws, so that a table can be made again.
        draws: samples, each as large as the data.
        level: share of the samples' means between the two ends.
    Returns:
        (low, high) under each name; (0, 0) for columns without values.
    """
    table: np.ndarray[Any, np.dtype[np.float64]] = np.array(list(columns.values()), dtype=float)
    if table.size == 0:
        return dict.fromkeys(columns, (0.0, 0.0))
    random, size = np.random.default_rng(seed), table.shape[1]
    means = np.stack([table[:, random.integers(size, size=size)].mean(1) for _ in range(draws)])
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail), axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(columns)}
