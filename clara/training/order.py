"""Which record comes when: a pure function of the seed, so a resumed training goes on alike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random


@dataclass(frozen=True)
class Order:
    """Every epoch has all records once, in an order of its own."""

    records: int
    batch: int
    seed: int

    def step(self, number: int) -> list[int]:
        """Positions of the records of one step; a batch may reach into the next epoch."""
        first = number * self.batch
        return [self._at(place) for place in range(first, first + self.batch)]

    def draw(self, number: int, place: int) -> Random:
        """What is drawn for the record at `place` of a step."""
        return Random(f"{self.seed}:{number}:{place}")  # noqa: S311 - nothing secret

    def steps(self, epochs: float) -> int:
        """Steps that many epochs take, rounded up."""
        return -int(-(self.records * epochs) // self.batch)

    def _at(self, place: int) -> int:
        epoch, within = divmod(place, self.records)
        return _shuffled(self.records, f"{self.seed}:{epoch}")[within]


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: str) -> Sequence[int]:
    found = list(range(count))
    random.Random(seed).shuffle(found)  # noqa: S311 - nothing secret
    return found
