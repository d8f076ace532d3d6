"""Work of different lengths in batches under a budget of token places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

BUDGETS = (8_192, 65_536)
"""Token places of one batch, on a CPU and on a GPU, where no other number is given."""


def budget(device: torch.device, given: int | None) -> int:
    """Token places of one batch."""
    return given if given is not None else BUDGETS[device.type == "cuda"]


def batches(lengths: Sequence[int], places: int) -> Iterator[list[int]]:
    """Positions of similar lengths, the longest first, so that a lack of memory shows at once.

    Args:
        lengths: in tokens.
        places: most tokens of a batch, filling included; one longer item is a batch of its own.
    """
    group: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if group and (len(group) + 1) * lengths[group[0]] > places:
            yield group
            group = []
        group.append(position)
    if group:
        yield group
