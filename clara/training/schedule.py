"""The learning rate over a training."""

from __future__ import annotations

import math

from clara.training.config import OptimiserConfig


def rate_at(share: float, config: OptimiserConfig) -> float:
    """Learning rate after a share of the training.

    It rises from 0 over `warmup`, then stays or falls as a cosine to `final_share`.

    Args:
        share: of the training that is done, 0 to 1; by steps, or by time where that is the bound.
        config: the optimiser's.
    """
    peak = config.learning_rate
    if share < config.warmup:
        return peak * share / config.warmup
    if config.schedule == "constant":
        return peak
    through = min((share - config.warmup) / max(1 - config.warmup, 1e-9), 1.0)
    floor = config.final_share
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * through)))
