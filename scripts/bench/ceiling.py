"""How near to what the machine can do: useful operations per second against matrix products.

Two ceilings: one large square product, and the products of the model's own layers for as many
tokens as one compressor batch has. Useful are two operations per weight of a block and token, and
those of attention over the tokens before; filling, the embedding and the head count nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from clara.model.generator import Generator
from clara.model.lora import block_linears

from .bench import Bench
from .clock import in_turn, ratios, spread
from .operations import useful
from .report import NAME, Report, rounded

FILL = 8
"""Times the passages of a round, so that there is a full batch to take."""


@dataclass(frozen=True)
class Work:
    """One thing to time."""

    call: Callable[[], object]
    tokens: int
    operations: float


def measure(bench: Bench) -> Report:
    """Products, compression and both kinds of prefill in turn."""
    works = {**_products(bench), "compression": _compression(bench), **_prefills(bench)}
    times = in_turn(
        {name: work.call for name, work in works.items()},
        rounds=bench.sizes.rounds,
        device=bench.device,
    )
    report = Report(
        "ceiling", f"Ceiling: {bench.device.type}, {str(bench.dtype).removeprefix('torch.')}"
    )
    speeds = {
        name: [works[name].operations / value / 1e9 for value in values]
        for name, values in times.items()
    }
    for name, work in works.items():
        report.figures(name, speeds[name], "GFLOP/s")
        report.data[f"{name}_gflops"] = rounded(speeds[name])
        if work.tokens:
            _against(report, name, [work.tokens / value for value in times[name]], speeds)
    return report


def _against(
    report: Report, name: str, tokens: list[float], speeds: dict[str, list[float]]
) -> None:
    """Tokens per second, and the share of both ceilings."""
    report.figures("", tokens, "tokens/s", digits=0)
    report.data[f"{name}_tokens_per_s"] = rounded(tokens)
    shares = {of: ratios(speeds[name], speeds[of]) for of in ("large product", "own shapes")}
    said = ", ".join(f"{spread(found).median:.0%} of {of}" for of, found in shares.items())
    report.say(f"{'':<{NAME}}      {said}")
    report.data[f"{name}_share"] = {of: rounded(found) for of, found in shares.items()}


def _products(bench: Bench) -> dict[str, Work]:
    size, model = bench.sizes.product, bench.memory.generator.model
    source = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn((size, size), generator=source).to(bench.device, bench.dtype) for _ in range(2)
    )
    layers = list(block_linears(model).values())
    tokens = bench.memory.compressor.max_batch_tokens
    states = {
        width: torch.randn((tokens, width), generator=source).to(bench.device, bench.dtype)
        for width in {layer.in_features for layer in layers}
    }

    def own() -> None:
        for layer in layers:
            linear(states[layer.in_features], layer.weight)

    weights = sum(layer.weight.numel() for layer in layers)
    return {
        "large product": Work(partial(torch.mm, left, right), 0, 2.0 * size**3),
        "own shapes": Work(own, 0, 2.0 * tokens * weights),
    }


def _compression(bench: Bench) -> Work:
    """One full batch of like passages."""
    compressor, sizes = bench.memory.compressor, bench.sizes
    passages = bench.corpus.passages(FILL * sizes.passages, sizes.words, bench.memory.tokens)
    plan = compressor.plan(passages)
    batch = plan[len(plan) // 2]
    lengths = [len(row) for row in batch.ids]
    return Work(
        partial(compressor.run, batch),
        sum(lengths),
        useful(bench.memory.generator.model, lengths),
    )


def _prefills(bench: Bench) -> dict[str, Work]:
    """To the first token, from the fewest passages that are read."""
    count = min(bench.sizes.read)
    passages = bench.to_read(count)
    generator = bench.memory.generator
    latents = bench.memory.compressor.compress(passages)
    prompts = {
        f"prefill, {count} latents": generator.prompt_from_latents("Why?", latents),
        f"prefill, {count} as text": generator.prompt_from_text("Why?", passages),
    }
    return {name: _prefill(generator, prompt) for name, prompt in prompts.items()}


def _prefill(generator: Generator, prompt: Tensor) -> Work:
    call = partial(generator.generate, [prompt], max_new_tokens=1)
    return Work(call, len(prompt), useful(generator.model, [len(prompt)]))
