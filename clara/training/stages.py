"""What the three stages share: an objective, and the examples it learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Protocol

from torch import Tensor

from clara.model.tokens import Tokens
from clara.training.trainee import Trainee

Sums = Mapping[str, Tensor]
"""Losses of one micro-batch by name, each summed over what it counts."""


class Example(Protocol):
    """One record, as token ids."""

    @property
    def id(self) -> str:
        """Of its record."""
        ...

    @property
    def places(self) -> int:
        """Token places it takes: what micro-batches are measured in."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """What each of the objective's sums is divided by, for this example."""
        ...


class Objective(Protocol):
    """A stage: records -> examples -> summed losses."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Of each loss in the total."""
        ...

    @property
    def learning(self) -> tuple[str, ...]:
        """Roles whose adapters and pooling weights change."""
        ...

    def example(self, record: Any, random: Random) -> Example | None:
        """Token ids of one record; None where nothing is left to learn from.

        Args:
            record: of this stage.
            random: seeded by the record's place in the training, the same at every repetition.
        """
        ...

    def __call__(self, trainee: Trainee, examples: Sequence[Any]) -> Sums:
        """Losses of a micro-batch, with gradients."""
        ...


def cut_documents(tokens: Tokens, texts: Sequence[str]) -> list[list[int]]:
    """Documents as the compressor reads them, at most `doc_max_length` tokens of each.

    Cutting loses the end token with the overflow, as in the published training.
    """
    longest = tokens.doc_max_length + 3
    return [row[:longest] for row in tokens.wrapped(texts)]


def target(tokens: Tokens, prompt: str, whole: str, max_len: int) -> tuple[list[int], int] | None:
    """Ids of prompt with answer, cut at `max_len`, and the length of the prompt.

    None where no token of the answer is left.
    """
    asked, ids = tokens.encode([prompt, whole])
    ids = ids[:max_len]
    return (ids, len(asked)) if len(ids) > len(asked) else None
