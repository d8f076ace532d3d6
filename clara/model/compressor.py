"""Passages -> latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from clara.model.backbone import hidden_states
from clara.model.kinds import LatentKind


@dataclass(frozen=True)
class Batch:
    """Texts that go through the model together."""

    positions: tuple[int, ...]
    """Where the texts stood in the list that was planned."""
    ids: tuple[tuple[int, ...], ...]
    """Their token ids, as the kind lays them out."""


@dataclass(frozen=True)
class Compressor:
    """The base with the compressor adapter, without its head. arXiv:2511.18659."""

    trunk: nn.Module
    kind: LatentKind
    pad: int
    max_batch_tokens: int
    """Most token places, filling included, of one pass: the longest wait of a question."""

    def plan(self, texts: Sequence[str], *, cut: bool = False) -> list[Batch]:
        """Batches of similar length under the token budget, the shortest texts first.

        Args:
            texts: passages.
            cut: read the beginning of a long text, as the published code does.
        Raises:
            EmptyText: a text of white space only.
            TextTooLong: a text of more than `doc_max_length` tokens, unless `cut`.
        """
        ids = [tuple(row) for row in self.kind.ids(texts, cut=cut)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        return [
            Batch(tuple(group), tuple(ids[i] for i in group))
            for group in groups(order, [len(row) for row in ids], self.max_batch_tokens)
        ]

    def run(self, batch: Batch) -> list[Tensor]:
        """One latent (rows, width) per text of the batch, in the model's dtype, on the CPU."""
        with torch.inference_mode():
            states = partial(hidden_states, self.trunk, pad=self.pad)
            blocks = self.kind.blocks(states, batch.ids)
            together = torch.cat(blocks).cpu()
        return [block.clone() for block in torch.split(together, [len(block) for block in blocks])]

    def compress(self, texts: Sequence[str], *, cut: bool = False) -> list[Tensor]:
        """One latent (rows, width) per text, in the order of the texts. As `plan` otherwise."""
        found: dict[int, Tensor] = {}
        for batch in self.plan(texts, cut=cut):
            found.update(zip(batch.positions, self.run(batch), strict=True))
        return [found[position] for position in range(len(texts))]


def groups(order: Sequence[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut `order`, which rises in length, where a batch's filled rectangle passes the budget."""
    group: list[int] = []
    for i in order:
        if group and (len(group) + 1) * lengths[i] > budget:
            yield group
            group = []
        group.append(i)
    if group:
        yield group
