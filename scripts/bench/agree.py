"""Two ways that are timed against each other must give the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clara.errors import ClaraError

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest distance against the length of the plain way's tensor, by dtype of the computation.

Merging rounds the weights once where the plain way rounds every layer's output, hence the distance
in bfloat16.
"""


class Disagreement(ClaraError):
    """Two ways to compute the same thing gave different numbers."""


def worst(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest distance between two tensors, against the length of the wanted one."""
    pairs = [(a.float(), b.float()) for a, b in zip(found, wanted, strict=True)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def check(
    name: str, found: Sequence[Tensor], wanted: Sequence[Tensor], dtype: torch.dtype
) -> float:
    """The largest distance.

    Raises:
        Disagreement: it is over the tolerance of `dtype`, or no number.
    """
    distance, limit = worst(found, wanted), TOLERANCE[dtype]
    if not distance <= limit:
        raise Disagreement(
            f"{name} differ by {distance:.2g} of their length; {limit:g} is allowed in {dtype}",
            field=name,
            limit=limit,
            remedy="Do not read the times below: one of the two ways computes something else",
        )
    return distance
