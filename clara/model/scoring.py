"""The one question-passage score, for training and serving."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def cosine(queries: Tensor, documents: Tensor) -> Tensor:
    """Cosine of flattened latents, in float32; gradients reach both sides.

    Args:
        queries: (..., 1, rows, width) or a shape that broadcasts against `documents`.
        documents: (..., n, rows, width).
    Returns:
        (..., n), in [-1, 1].
    """
    return cosine_similarity(queries.float().flatten(-2), documents.float().flatten(-2), dim=-1)


def score(query: Tensor, latents: Sequence[Tensor] | Tensor) -> Tensor:
    """Score one question against passages.

    Args:
        query: (rows, width).
        latents: n latents (rows, width), as a list or stacked.
    Returns:
        (n,), float32, cosine in [-1, 1]; empty for no passages.
    """
    if len(latents) == 0:
        return torch.empty(0)
    stacked = latents if isinstance(latents, Tensor) else torch.stack(list(latents))
    return cosine(query.unsqueeze(0), stacked)
