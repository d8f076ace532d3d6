"""What the generator reads and has to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Target:
    """One prompt with its answer."""

    ids: Sequence[int]
    """Prompt and answer, cut at the longest sequence."""
    prompt: int
    """How many of the ids are the prompt: they carry no loss."""
    latents: Sequence[Tensor]
    """Blocks (rows, width) for the prompt's memory tokens."""

    @property
    def labels(self) -> Sequence[int]:
        """The ids that carry loss."""
        return self.ids[self.prompt :]
