"""Attention with gradients on a processor: torch's kernel and ours, in turns.

Usage: python scripts/bench_attention.py [--rounds 5] [--threads 1]

Shapes are those of the default base in training: 9 heads of 64 over 3 key heads, bfloat16, forward
and backward. Milliseconds of processor time, medians; prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from clara.model.attention import attend

SHAPES = ((12, 170), (8, 256), (4, 420), (4, 700), (2, 1400))
"""Sequences and their tokens."""

Attention = Callable[..., tuple[Tensor, Any]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    layer = nn.Module()
    cast(Any, layer).num_key_value_groups, cast(Any, layer).is_causal = 3, True
    ways: dict[str, Attention] = {"torch": cast(Any, sdpa_attention_forward), "ours": attend}
    found = []
    print(f"{'sequences':>10}{'tokens':>8}{'torch ms':>10}{'ours ms':>10}{'ratio':>8}")
    for sequences, tokens in SHAPES:
        inputs = [_random(sequences, heads, tokens) for heads in (9, 3, 3)]
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(given.rounds + 1):  # the first is for warming up
            for name, way in ways.items():
                took = _pass(way, layer, inputs)
                if number:
                    times[name].append(took)
        ms = {name: statistics.median(taken) for name, taken in times.items()}
        ratio = ms["torch"] / ms["ours"]
        found.append({"sequences": sequences, "tokens": tokens, **ms, "ratio": ratio})
        print(f"{sequences:>10}{tokens:>8}{ms['torch']:>10.1f}{ms['ours']:>10.1f}{ratio:>8.2f}")
    print(json.dumps(found))


def _random(sequences: int, heads: int, tokens: int) -> Tensor:
    return torch.randn(sequences, heads, tokens, 64, dtype=torch.bfloat16, requires_grad=True)


def _pass(way: Attention, layer: nn.Module, inputs: list[Tensor]) -> float:
    """Milliseconds of processor time of three passes forward and back, for one."""
    started = time.process_time()
    for _ in range(3):
        way(layer, *inputs, None)[0].sum().backward()  # type: ignore[no-untyped-call]
    return (time.process_time() - started) / 3 * 1000


if __name__ == "__main__":
    main()
