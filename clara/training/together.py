"""What the processes of one training have to agree on; a single process sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

T = TypeVar("T")


class Together:
    """Sums and maxima over the processes of a training, the same ones in all of them."""

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self.count = accelerator.num_processes if accelerator else 1
        self.index = accelerator.process_index if accelerator else 0

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share."""
        return items[self.index :: self.count]

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value summed over all processes."""
        if self.count == 1:
            return dict(values)
        return dict(zip(values, self._reduce(list(values.values()), "sum"), strict=True))

    def most(self, value: float) -> float:
        """The largest value any process has."""
        return value if self.count == 1 else self._gathered(value).max().item()

    def any(self, value: bool) -> bool:
        """Whether it is so in any process."""
        return self.most(float(value)) > 0

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def _reduce(self, values: list[float], how: str) -> list[float]:
        assert self._accelerator is not None  # noqa: S101 - more than one process has one
        sent = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        found: Tensor = self._accelerator.reduce(sent, reduction=how)
        return found.tolist()

    def _gathered(self, value: float) -> Tensor:
        assert self._accelerator is not None  # noqa: S101 - more than one process has one
        sent = torch.tensor([value], dtype=torch.float64, device=self._accelerator.device)
        found: Tensor = self._accelerator.gather(sent)
        return found
