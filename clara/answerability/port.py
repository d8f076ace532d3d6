"""What refusing needs of an encoder that reads a question and a passage together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from clara.nearness import NOTHING_IS_FAR

FIRST = 2
"""Passages that are looked at first: mostly one of them answers, and the rest need not be."""


TOGETHER = 3
"""Passages that are read as one, those that look best each by itself: an answer may need two of
them, and the first two need not be these."""


@runtime_checkable
class PairEncoder(Protocol):
    """An encoder that says of passages whether they answer a question."""

    @property
    def least_answerability(self) -> float:
        """What the passages read must reach at their best, as it was measured with the encoder."""
        ...

    def answerability(self, question: str, passages: Sequence[str]) -> list[float]:
        """Of each passage, 0 to 1, in their order."""
        ...


def joined(passages: Sequence[str]) -> str:
    """Several passages as one, which an encoder cuts where its places end."""
    return "\n".join(passages)


def best_answerability(question: str, passages: Sequence[str], encoder: PairEncoder) -> float:
    """Of the passages each by itself and the best of them as one, that of the best; 0 to 1.

    Args:
        question: any text.
        passages: one or more.
        encoder: of pairs.
    """
    alone = encoder.answerability(question, passages)
    return max(*alone, _together(question, passages, alone, encoder))


def unanswered(
    question: str, read: Sequence[str], encoder: PairEncoder, chosen: float | None
) -> bool:
    """Whether no passage looks as if it answered the question, nor several together.

    Args:
        question: any text.
        read: passages that would be read for it, best first; none answer nothing.
        encoder: of pairs; not asked where the bound lets everything through.
        chosen: bound; None takes the one that was measured.
    """
    least = encoder.least_answerability if chosen is None else chosen
    if least <= NOTHING_IS_FAR:
        return False
    alone: list[float] = []
    for some in (read[:FIRST], read[FIRST:]):
        alone += encoder.answerability(question, some) if some else []
        if any(one >= least for one in alone):
            return False
    return _together(question, read, alone, encoder) < least


def _together(
    question: str, passages: Sequence[str], alone: Sequence[float], encoder: PairEncoder
) -> float:
    """How far those that look best alone answer as one; below everything where there is one."""
    if len(passages) < 2:
        return NOTHING_IS_FAR
    best = sorted(range(len(passages)), key=lambda at: -alone[at])[:TOGETHER]
    (found,) = encoder.answerability(question, [joined([passages[at] for at in best])])
    return found
