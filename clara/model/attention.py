"""Attention on a CPU for decoding and for training, where torch's own kernel is slow.

In a decoding step it spends its time on packing. With a backward pass in bfloat16 it takes nearly
twice as long as plain products on sequences of 170 tokens, and no longer from some 250 tokens on,
since the products' memory grows with the square (BENCHMARKS.md, training steps).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "clara_cpu"

MOST_WITH_GRADIENTS = 192
"""Tokens of a pass with gradients that goes by plain products."""


def use_on_cpu(model: PreTrainedModel) -> None:
    """Let `model` attend through `attend`; models of another kind than sdpa keep theirs."""
    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: object,
) -> tuple[Tensor, Tensor | None]:
    """New tokens one by one, and short passes with gradients, by plain products; else as torch.

    Args:
        module: the attention layer.
        query: (batch, heads, tokens, size).
        key: (batch, key heads, positions, size); heads is a multiple of key heads.
        value: like `key`.
        attention_mask: True where a token may look, (batch or 1, 1, tokens, positions); None where
            every position before it counts.
        scaling: of the products; 1 / sqrt(size) where None.
        options: passed on.
    Returns:
        (batch, tokens, heads, size) and no weights.
    """
    short = query.shape[2] == key.shape[2] <= MOST_WITH_GRADIENTS
    if query.requires_grad and short and not options.get("dropout"):
        return _with_gradients(query, key, value, attention_mask, scaling), None
    if query.shape[2] != 1 or attention_mask is not None:
        found: tuple[Tensor, Tensor | None] = cast(Any, sdpa_attention_forward)(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return found
    batch, heads, _, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    grouped = query.reshape(batch, key.shape[1], heads // key.shape[1], size).float()
    weights = torch.softmax(scale * (grouped @ key.float().transpose(2, 3)), dim=-1)
    mixed = (weights @ value.float()).to(query.dtype)
    return mixed.reshape(batch, 1, heads, size), None


def _with_gradients(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """All tokens at once, heads that share a key in one product; (batch, tokens, heads, size)."""
    batch, heads, tokens, size = query.shape
    groups = key.shape[1]
    if mask is None:
        mask = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril()[None, None]
    rows = query.reshape(batch, groups, heads // groups * tokens, size)
    scores = (rows @ key.transpose(2, 3)) * (size**-0.5 if scaling is None else scaling)
    seen = scores.view(batch, groups, heads // groups, tokens, tokens)
    if mask.dtype == torch.bool:
        seen = seen.masked_fill(~mask.unsqueeze(2), float("-inf"))
    else:
        seen = seen + mask.unsqueeze(2)
    weights = torch.softmax(seen, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = weights.view_as(scores) @ value
    return mixed.view(batch, heads, tokens, size).transpose(1, 2)
