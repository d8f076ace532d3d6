"""How many operations a pass takes by arithmetic alone: two per weight and token, and attention."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from clara.model.backbone import head_of
from clara.model.lora import block_linears


def useful(model: PreTrainedModel, lengths: Sequence[int]) -> float:
    """Those of the blocks over sequences of these lengths; no filling, no head.

    Attention counts two for each score and two for each mixing, over the tokens before alone.
    """
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    weights = sum(layer.weight.numel() for layer in block_linears(model).values())
    width = int(config.num_hidden_layers * config.num_attention_heads * size)
    return sum(2.0 * weights * n + 2.0 * width * n * (n + 1) for n in lengths)


def plain(model: PreTrainedModel, lengths: Sequence[int], *, rank: int) -> float:
    """`useful`, and those of adapters beside the weights and of the head on every token.

    Args:
        model: as it was before its layers were wrapped.
        lengths: with their filling.
        rank: of the adapters.
    """
    layers = block_linears(model).values()
    beside = sum(rank * (layer.in_features + layer.out_features) for layer in layers)
    each = 2.0 * (beside + head_of(model).weight.numel())
    return useful(model, lengths) + each * sum(lengths)
