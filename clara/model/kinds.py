"""The two ways to make latents, behind one interface; here the published one, memory tokens.

Serving and training share it: a kind is told how hidden states are made and keeps gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from clara.model.tokens import Tokens

States = Callable[[Sequence[Sequence[int]]], list[Tensor]]
"""Ids of each sequence -> its last hidden states (ids, width)."""


class LatentKind(Protocol):
    """How a text becomes a block, and what of two blocks is compared."""

    def ids(self, texts: Sequence[str], *, cut: bool = False) -> list[list[int]]:
        """Input of one pass per text; arguments and errors are those of `Tokens.passage_ids`."""
        ...

    def rows(self, sequence: Sequence[int]) -> int:
        """Rows of the block of a sequence that `ids` made."""
        ...

    def blocks(self, states: States, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """One block (rows, width) per sequence that `ids` made, in the states' order."""
        ...

    def vector(self, block: Tensor) -> Tensor:
        """One vector, of one size for all blocks: what a dense index of latents compares."""
        ...

    def compare(self, query: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """Scores (blocks,) of a query latent against one or more blocks, float32, in [-1, 1].

        Gradients reach both sides.
        """
        ...


def cosine(queries: Tensor, documents: Tensor) -> Tensor:
    """Cosine of vectors, in float32; gradients reach both sides.

    Args:
        queries: (..., 1, size) or a shape that broadcasts against `documents`.
        documents: (..., n, size).
    Returns:
        (..., n), in [-1, 1].
    """
    return cosine_similarity(queries.float(), documents.float(), dim=-1)


@dataclass(frozen=True)
class MemoryKind:
    """The last hidden states at memory tokens behind the text. arXiv:2511.18659, section 3."""

    tokens: Tokens

    def ids(self, texts: Sequence[str], *, cut: bool = False) -> list[list[int]]:
        """`<ENC>` bos text eos, then the memory tokens."""
        return [[*row, *self.tokens.memory] for row in self.tokens.passage_ids(texts, cut=cut)]

    def rows(self, sequence: Sequence[int]) -> int:  # noqa: ARG002 - the same for every text
        """Always n_mem."""
        return self.tokens.n_mem

    def blocks(self, states: States, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Blocks (n_mem, width)."""
        return [found[-self.tokens.n_mem :] for found in states(sequences)]

    def vector(self, block: Tensor) -> Tensor:
        """The block flattened in row order: (n_mem * width,)."""
        return block.flatten()

    def compare(self, query: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """Cosines of the flattened blocks, as published."""
        return cosine(self.vector(query), torch.stack([self.vector(block) for block in blocks]))
