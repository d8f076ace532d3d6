"""Whether the passages found for a question speak of it at all: what is refused without a model.

The nearest passage to a question that a corpus answers is nearly always nearer than the nearest to
one that it does not (BENCHMARKS.md, refusals). A sentence encoder knows little of codes and names,
though, so a passage that has the words of the question is never too far from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum

from clara.evidence import words_of, worth

MIN_COSINE = 0.45
"""Of the default sentence encoder, measured on training questions with and without the passages
that answer them (`scripts/bench_refusals.py`)."""

NOTHING_IS_FAR = -1.0
"""A bound that every cosine reaches."""

MOST_WORDS = 0.8
"""Share of a question's words that makes a passage near, whatever its vector."""


def bound(chosen: float | None, measured: float, *, default_encoder: bool) -> float:
    """The one in effect: what was chosen, else what was measured with the default encoder."""
    if chosen is not None:
        return chosen
    return measured if default_encoder else NOTHING_IS_FAR


def is_near(question: str, passages: Iterable[str], cosines: Sequence[float], least: float) -> bool:
    """Whether one passage is near enough to a question to be worth answering from.

    Args:
        question: any text.
        passages: what was found for it.
        cosines: of the question's vector with theirs; none where no encoder was asked, and then
            nothing is too far.
        least: cosine that one of them has to reach.
    """
    if not cosines or max(cosines) >= least:
        return True
    return any(shared(question, passage) >= MOST_WORDS for passage in passages)


def shared(question: str, passage: str) -> float:
    """Share of the weight of a question's words that a passage has too, 0 to 1.

    Words without content weigh next to nothing. A question without words shares nothing.
    """
    asked, held = words_of(question), words_of(passage)
    total = fsum(map(worth, asked))
    return fsum(worth(word) for word in asked & held) / total if total else 0.0
