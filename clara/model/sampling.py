"""The next token: the most likely one, or one drawn from the distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clara.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer's tokens are chosen."""

    temperature: float = 0.0
    """Divides the logits; 0 takes the most likely token, smaller is closer to that."""
    seed: int = 0
    """Of the draws; the same seed gives the same answer on the same device and dtype."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InvalidInput(
                f"temperature is {self.temperature}; it must be a number from 0 on",
                field="temperature",
                limit=0,
            )
        if not 0 <= self.seed < 2**63:
            raise InvalidInput(f"seed is {self.seed}; it must be in 0..2**63 - 1", field="seed")

    def sources(self, rows: int) -> list[torch.Generator]:
        """A source of draws per answer, all with this seed: no answer depends on its neighbours.

        None are needed at temperature 0.
        """
        wanted = rows if self.temperature > 0 else 0
        return [torch.Generator().manual_seed(self.seed) for _ in range(wanted)]


GREEDY = Sampling()


def choose(logits: Tensor, temperature: float, sources: Sequence[torch.Generator]) -> Tensor:
    """The next id of every answer.

    Draws by inverting the distribution function: one number per answer, so that a draw costs next
    to nothing and is the same whatever the device that computed the logits.

    Args:
        logits: (n, vocabulary).
        temperature: 0 takes the largest logit, the first of equal ones.
        sources: n CPU generators, which advance by one draw each; unused at temperature 0.
    Returns:
        ids (n,), int64, on the device of `logits`.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    draws = [torch.rand((1, 1), generator=source, dtype=torch.float64) for source in sources]
    uniform = torch.cat(draws).to(logits.device)
    # the largest logit is taken off first: divided by a tiny temperature it would overflow
    shifted = logits.double() - logits.double().amax(dim=-1, keepdim=True)
    below = (shifted / temperature).exp().cumsum(dim=-1)
    total = below[:, -1:]
    # rounding must not reach the total, behind which there is no id
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(below, target, right=True).squeeze(1)
