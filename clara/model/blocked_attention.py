"""Attention with gradients on a CPU, a block of queries at a time.

The scores of one block of one sequence stay in the processor's cache from product to softmax to
product, and nothing behind a block is computed. In bfloat16, forward and backward are two to four
times as fast as torch's kernel, at every length that was tried (BENCHMARKS.md, training steps).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128
"""Queries at a time; fewer make more, smaller products."""


def attend_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """Causal attention of tokens that are all new.

    Args:
        query: (batch, heads, tokens, size).
        key: (batch, key heads, tokens, size); heads is a multiple of key heads.
        value: like `key`.
        mask: (batch or 1, 1, tokens, tokens), True where a token may look, or what is added to its
            scores; it hides what comes after a token, and never the token itself. None hides only
            what comes after.
        scaling: of the products.
    Returns:
        (batch, tokens, heads, size).
    """
    mixed: Tensor = cast(Any, _Blocks).apply(query, key, value, mask, scaling)
    return mixed.transpose(1, 2)


class _Blocks(torch.autograd.Function):
    """Keeps every block's weights for the way back, in the type they were computed in."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
    ) -> Tensor:
        mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
        weights = []
        for row, block in _blocks(query):
            rows = _grouped(query[row, :, block] * scaling, key.shape[1])
            scores = torch.bmm(rows, key[row, :, : block.stop].transpose(1, 2))
            _hide(scores.view(key.shape[1], -1, block.stop - block.start, block.stop), mask, row)
            weights.append(torch.softmax(scores, -1))
            found = torch.bmm(weights[-1], value[row, :, : block.stop])
            mixed[row, :, block] = _apart(found, query, block)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.scaling = scaling
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, *weights = ctx.saved_tensors
        of_query = torch.empty_like(query, memory_format=torch.contiguous_format)
        of_key, of_value = (torch.zeros(key.shape, dtype=torch.float32) for _ in range(2))
        for (row, block), looked in zip(_blocks(query), weights, strict=True):
            seen, groups = slice(block.stop), key.shape[1]
            back = _grouped(gradient[row, :, block], groups)
            of_value[row, :, seen] += torch.bmm(looked.transpose(1, 2), back)
            of_looked = torch.bmm(back, value[row, :, seen].transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_looked, looked, -1, looked.dtype)
            found = torch.bmm(of_scores, key[row, :, seen])
            of_query[row, :, block] = _apart(found, query, block)
            of_key[row, :, seen] += torch.bmm(
                of_scores.transpose(1, 2), _grouped(query[row, :, block], groups)
            )
        scaled = (of_query.mul_(ctx.scaling), of_key.mul_(ctx.scaling).to(key.dtype))
        return *scaled, of_value.to(value.dtype), None, None


def _blocks(query: Tensor) -> Iterator[tuple[int, slice]]:
    """Sequence by sequence, where a block of its queries begins and ends."""
    tokens = query.shape[2]
    for row in range(query.shape[0]):
        for first in range(0, tokens, BLOCK):
            yield row, slice(first, min(first + BLOCK, tokens))


def _grouped(rows: Tensor, groups: int) -> Tensor:
    """(heads, block, size) -> (key heads, heads per key head * block, size)."""
    return rows.reshape(groups, -1, rows.shape[-1])


def _apart(rows: Tensor, query: Tensor, block: slice) -> Tensor:
    """(key heads, heads per key head * block, size) -> (heads, block, size)."""
    return rows.view(query.shape[1], block.stop - block.start, query.shape[3])


def _hide(scores: Tensor, mask: Tensor | None, row: int) -> None:
    """Take what a block's queries may not see out of their scores, in place.

    Args:
        scores: (key heads, heads per key head, block, keys up to the block's end).
        mask: of the whole batch.
        row: which of its sequences this is.
    """
    size, keys = scores.shape[-2:]
    if mask is None:
        after = torch.ones(size, size, dtype=torch.bool).triu(1)
        scores[..., keys - size :].masked_fill_(after, float("-inf"))
        return
    own = mask[row if len(mask) > 1 else 0, 0, keys - size : keys, :keys]
    if mask.dtype == torch.bool:
        scores.masked_fill_(~own, float("-inf"))
    else:
        scores += own
