"""Differentiable top-k: plain tensors in and out."""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE_FLOOR = 1e-6
"""Smaller temperatures are raised to this, in score units."""

_TAKEN = 1e-8
"""Keeps the logarithm finite; takes 18.4 off the logit of a passage that is already chosen."""


def select(scores: Tensor, k: int, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Choose k passages per question so that gradients still reach every score.

    Forward: the exact top k. Backward: a softmax over what is left, slot by slot.
    arXiv:2511.18659.

    Args:
        scores: (questions, passages), cosine in [-1, 1], float32.
        k: passages kept per question, 1 <= k <= passages.
        temperature: in score units; smaller is closer to argmax; raised to TEMPERATURE_FLOOR.
    Returns:
        weights (questions, k, passages), one-hot in the forward pass; chosen (questions, k),
        best first.
    Raises:
        ValueError: k is out of range or temperature is negative.
    """
    passages = scores.shape[-1]
    if not 1 <= k <= passages:
        raise ValueError(f"k must be in 1..{passages}, got {k}")
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    logits = scores / max(temperature, TEMPERATURE_FLOOR)
    chosen = logits.topk(k, dim=-1).indices
    hard = torch.nn.functional.one_hot(chosen, passages).to(logits.dtype)
    taken = hard.cumsum(dim=1) - hard
    soft = (logits.unsqueeze(1) + torch.log(1 - taken + _TAKEN)).softmax(dim=-1)
    return hard + (soft - soft.detach()), chosen
