"""Dense vectors out of the checkpoint itself: the mean row of a latent, for passage and question.

One space instead of a second model. A passage is read by the compressor, a question by the query
reasoner, as for the latents that re-rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Compressor(Protocol):
    """Passages -> latents."""

    def compress(self, texts: Sequence[str]) -> list[Tensor]:
        """One block (rows, width) per text."""
        ...


class Reasoner(Protocol):
    """Questions -> query latents."""

    def encode(self, questions: Sequence[str]) -> list[Tensor]:
        """One block (rows, width) per question."""
        ...


class LatentEncoder:
    """VectorEncoder over the two roles of a checkpoint; for one thread at a time, as they are.

    Args:
        fingerprint: of the compressor's latents. It names the vectors, so that those of two
            checkpoints are never compared; a checkpoint that leaves the compressor as it is keeps
            them.
        width: of one row.
    """

    def __init__(
        self, compressor: Compressor, reasoner: Reasoner, *, fingerprint: str, width: int
    ) -> None:
        self.name = f"latents:{fingerprint}"
        self.dimension = width
        self._compressor = compressor
        self._reasoner = reasoner

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (texts, dimension) of passages.

        Raises:
            EmptyText: a text of white space only.
            TextTooLong: a text of more tokens than the compressor reads.
        """
        return mean_rows(self._compressor.compress(texts), self.dimension)

    def encode_questions(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (questions, dimension).

        Raises:
            EmptyText: a question of white space only.
            QuestionTooLong: a question of more tokens than the reasoner reads.
        """
        return mean_rows(self._reasoner.encode(questions), self.dimension)


def mean_rows(blocks: Sequence[Tensor], width: int) -> NDArray[np.float32]:
    """The direction of each block's mean row: (blocks, width). What `PooledKind` compares."""
    if not blocks:
        return torch.zeros(0, width).numpy()
    means = torch.stack([block.float().mean(dim=0) for block in blocks])
    vectors: NDArray[np.float32] = normalize(means).numpy()
    return vectors
