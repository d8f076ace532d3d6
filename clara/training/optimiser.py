"""What takes the steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from clara.errors import InvalidTraining
from clara.training.config import OptimiserConfig

OWN_RATE = {"weights", "gate", "memory_rows"}
"""Last part of the names of what learns at `weights_rate` times the rate."""

FUSED = {"cuda", "cpu"}
"""Devices whose AdamW is one kernel."""


def optimiser_of(
    learned: Mapping[str, nn.Parameter], config: OptimiserConfig
) -> torch.optim.Optimizer:
    """AdamW over parameters by name; pooling weights, gates and memory rows at their own rate.

    Raises:
        InvalidTraining: there is nothing to learn.
    """
    if not learned:
        raise InvalidTraining("nothing would be learned", field="learning")
    own = {name: p for name, p in learned.items() if name.rpartition(".")[2] in OWN_RATE}
    rest = [p for name, p in learned.items() if name not in own]
    chosen = [
        {"params": rest, "scale": 1.0},
        {"params": list(own.values()), "scale": config.weights_rate},
    ]
    return torch.optim.AdamW(
        [group for group in chosen if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=next(iter(learned.values())).device.type in FUSED,
    )
