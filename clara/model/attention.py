"""Attention on a CPU for decoding and for training, where torch's own kernel is slow.

In a decoding step it spends its time on packing; how a pass with gradients goes is in
`blocked_attention`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from clara.model.blocked_attention import attend_in_blocks

NAME = "clara_cpu"


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
    """New tokens one by one by plain products, passes with gradients in blocks; else as torch.

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
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    whole = query.shape[2] == key.shape[2]
    if query.requires_grad and whole and not options.get("dropout"):
        return attend_in_blocks(query, key, value, attention_mask, scale), None
    if query.shape[2] != 1 or attention_mask is not None:
        found: tuple[Tensor, Tensor | None] = cast(Any, sdpa_attention_forward)(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return found
    batch, heads, _, size = query.shape
    grouped = query.reshape(batch, key.shape[1], heads // key.shape[1], size).float()
    weights = torch.softmax(scale * (grouped @ key.float().transpose(2, 3)), dim=-1)
    mixed = (weights @ value.float()).to(query.dtype)
    return mixed.reshape(batch, 1, heads, size), None
