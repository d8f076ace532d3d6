"""Attention for a decoding step on a CPU, where torch's own kernel spends its time on packing."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

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
    """One new token per sequence by plain products in float32; everything else as torch does it.

    Args:
        module: the attention layer.
        query: (batch, heads, tokens, size).
        key: (batch, key heads, positions, size); heads is a multiple of key heads.
        value: like `key`.
        attention_mask: None where every position counts.
        scaling: of the products; 1 / sqrt(size) where None.
        options: passed on.
    Returns:
        (batch, tokens, heads, size) and no weights.
    """
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
