"""Seconds of several sides that take turns, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

Times = dict[str, list[float]]
"""By side: seconds, a figure per round."""


@dataclass(frozen=True)
class Spread:
    """The middle of several figures, and how far they lie apart."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one figure."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """How many times as long the first side took, round by round."""
    return [one / other for one, other in zip(slow, fast, strict=True)]


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of one call, until the device has done what it asks for."""
    _wait(device)
    start = perf_counter()
    call()
    _wait(device)
    return perf_counter() - start


def in_turn(
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    device: torch.device,
    warm: bool = True,
) -> Times:
    """Every side once per round: A B A B ...

    Args:
        sides: what to call, by name.
        rounds: how often.
        device: that computes.
        warm: call each side once before, uncounted.
    """
    for call in sides.values() if warm else ():
        call()
    times: Times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            times[name].append(seconds(call, device))
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
