"""The one question-passage score, for training and serving."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from clara.model.kinds import LatentKind


def cosine(queries: Tensor, documents: Tensor) -> Tensor:
    """Cosine of vectors, in float32; gradients reach both sides.

    Args:
        queries: (..., 1, size) or a shape that broadcasts against `documents`.
        documents: (..., n, size).
    Returns:
        (..., n), in [-1, 1].
    """
    return cosine_similarity(queries.float(), documents.float(), dim=-1)


def score(kind: LatentKind, query: Tensor, latents: Sequence[Tensor]) -> Tensor:
    """Score one question against passages.

    Args:
        kind: says what of a block is compared.
        query: (rows, width).
        latents: n blocks (rows, width); rows may differ where the kind allows it.
    Returns:
        (n,), float32, cosine in [-1, 1]; empty for no passages.
    """
    if len(latents) == 0:
        return torch.empty(0)
    documents = torch.stack([kind.vector(latent) for latent in latents])
    return cosine(kind.vector(query).unsqueeze(0), documents)
