"""What refusing needs of an encoder that reads a question and a passage together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from clara.nearness import NOTHING_IS_FAR

FIRST = 2
"""Passages that are looked at first: mostly one of them answers, and the rest need not be."""


@runtime_checkable
class PairEncoder(Protocol):
    """An encoder that says of passages whether they answer a question."""

    @property
    def least_answerability(self) -> float:
        """What the best of the passages read must reach, as it was measured with the encoder."""
        ...

    def answerability(self, question: str, passages: Sequence[str]) -> list[float]:
        """Of each passage, 0 to 1, in their order."""
        ...


def unanswered(
    question: str, read: Sequence[str], encoder: PairEncoder, chosen: float | None
) -> bool:
    """Whether no passage looks as if it answered the question.

    Args:
        question: any text.
        read: passages that would be read for it, best first; none answer nothing.
        encoder: of pairs; not asked where the bound lets everything through.
        chosen: bound; None takes the one that was measured.
    """
    least = encoder.least_answerability if chosen is None else chosen
    if least <= NOTHING_IS_FAR:
        return False
    parts = (read[:FIRST], read[FIRST:])
    return not any(max(encoder.answerability(question, some)) >= least for some in parts if some)
