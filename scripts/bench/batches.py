"""Questions answered together, filled on the left, against one by one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from clara.model.generator import Generator

from .bench import Bench
from .clock import in_turn
from .report import Report, rounded
from .texts import questions


def measure(bench: Bench) -> Report:
    """Tokens per second of both, end tokens ignored so that both decode as many."""
    sizes = bench.sizes
    generator = replace(bench.memory.generator, ends=frozenset())
    prompts = _prompts(bench, generator)
    count = sizes.new_tokens
    together = partial(generator.generate, prompts, max_new_tokens=count)
    alone = partial(one_by_one, generator, prompts, count)
    same = sum(a == b for a, b in zip(together(), alone(), strict=True))
    times = in_turn(
        {"together": together, "one by one": alone},
        rounds=sizes.rounds,
        device=bench.device,
        warm=False,
    )
    lengths = [len(prompt) for prompt in prompts]
    report = Report(
        "batches",
        f"Batched answers: {len(prompts)} questions, prompts of {min(lengths)} to {max(lengths)} "
        f"tokens, {count} new ones each",
    )
    for side, values in times.items():
        speeds = [len(prompts) * count / value for value in values]
        report.figures(side, speeds, "tokens/s")
        report.data[f"{side}_tokens_per_s"] = rounded(speeds)
    report.ratio("one by one", "together", times)
    report.say(f"{same} of {len(prompts)} answers are the same, token by token")
    report.data["same"] = same
    return report


def one_by_one(generator: Generator, prompts: list[Tensor], count: int) -> list[list[int]]:
    """`count` ids for each prompt."""
    return [generator.generate([prompt], max_new_tokens=count)[0] for prompt in prompts]


def _prompts(bench: Bench, generator: Generator) -> list[Tensor]:
    """One per question, over the same passages; of different lengths as questions are."""
    latents = bench.memory.compressor.compress(bench.to_read(bench.sizes.top_k))
    asked = questions(bench.sizes.together)
    return [generator.prompt_from_latents(question, latents) for question in asked]
