"""The one question-passage score, for training and serving."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clara.model.kinds import LatentKind


def score(kind: LatentKind, query: Tensor, latents: Sequence[Tensor]) -> Tensor:
    """Score one question against passages.

    Args:
        kind: of the passages' latents; says how two of them are compared.
        query: (rows, width).
        latents: n blocks (rows, width); rows may differ where the kind allows it.
    Returns:
        (n,), float32, in [-1, 1]; empty for no passages.
    """
    return kind.compare(query, latents) if len(latents) else torch.empty(0)
