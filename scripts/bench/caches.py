"""Decoding step by step: our growing cache against a static one, plain and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from clara.model.decoding import Decoding
from clara.model.sampling import GREEDY

from .bench import Bench
from .children import ChildFailed, in_child
from .clock import Times, in_turn
from .report import Report
from .static import Forward, StaticDecoding
from .texts import questions
from .weights import Setup

START_S = 45.0
"""Seconds a process may take to load, beside those for compiling."""


@dataclass(frozen=True)
class Stepped:
    """What several ways to decode one prompt took, and whether they said the same."""

    times: Times
    """Of as many steps as were asked for, per round."""
    same_ids: bool
    ready_s: float = 0.0
    """Seconds until the first compiled step was done."""
    trouble: str = ""
    """Why there are no times."""


@dataclass
class Stepping:
    """A prompt that goes on by some ids at each call."""

    step: Callable[[], int]
    count: int
    ids: list[int]

    def __call__(self) -> None:
        """Take the next ids."""
        for _ in range(self.count):
            self.ids.append(self.step())


def measure(bench: Bench) -> Report:
    """Milliseconds per token of each way, after a prompt with the usual number of latents."""
    sizes = bench.sizes
    generator = bench.memory.generator
    latents = bench.memory.compressor.compress(bench.to_read(sizes.top_k))
    prompt = generator.prompt_from_latents(questions(1)[0], latents)
    report = Report("caches", f"Decoding a token after {len(prompt)}: caches")
    found = stepped(generator.model, prompt, count=sizes.new_tokens, rounds=sizes.rounds)
    _say(report, found, "static cache", sizes.new_tokens)
    if sizes.compile_s:
        _say(report, _compiled(bench, prompt), "compiled static cache", sizes.new_tokens)
    return report


def stepped(
    model: PreTrainedModel,
    prompt: Tensor,
    *,
    count: int,
    rounds: int,
    forward: Forward | None = None,
) -> Stepped:
    """Decode with our cache and with a static one in turn.

    Args:
        model: causal language model.
        prompt: input embeddings (tokens, width).
        count: ids per round.
        rounds: how often each takes its turn, after one uncounted.
        forward: compiled, in place of the model's own, for the static cache.
    """
    start = perf_counter()
    name = "static cache" if forward is None else "compiled static cache"
    fixed = StaticDecoding(model, prompt, (rounds + 1) * count + 1, forward)
    growing = Decoding(model, [prompt], GREEDY)
    sides = {
        "ours": Stepping(lambda: growing.step()[0], count, growing.step()),
        name: Stepping(fixed.step, count, [fixed.first]),
    }
    sides[name]()
    ready = perf_counter() - start
    sides["ours"]()
    times = in_turn(sides, rounds=rounds, device=prompt.device, warm=False)
    return Stepped(times, sides["ours"].ids == sides[name].ids, ready)


def compiled(setup: Setup, prompt: NDArray[np.float32], *, count: int, rounds: int) -> Stepped:
    """`stepped` with a compiled model, in a process of its own.

    Args:
        setup: what to load.
        prompt: input embeddings (tokens, width).
        count: ids per round.
        rounds: how often each takes its turn.
    """
    torch.set_num_threads(setup.threads)
    torch._inductor.config.compile_threads = 1  # helpers would outlive a process that is ended
    model = setup.models("memory").generator.model
    embeds = torch.from_numpy(prompt).to(model.device, model.dtype)
    mode = "reduce-overhead" if model.device.type == "cuda" else None
    forward = torch.compile(cast(Forward, model.base_model), dynamic=False, mode=mode)
    try:
        return stepped(model, embeds, count=count, rounds=rounds, forward=forward)
    except Exception as error:  # whatever a missing or old compiler makes torch raise
        return Stepped({}, same_ids=False, trouble=f"{type(error).__name__}: {error}"[:200])


def _compiled(bench: Bench, prompt: Tensor) -> Stepped:
    sizes = bench.sizes
    try:
        return in_child(
            compiled,
            sizes.compile_s + START_S,
            bench.setup,
            prompt.float().cpu().numpy(),
            count=sizes.new_tokens,
            rounds=sizes.rounds,
        )
    except TimeoutError:
        words = f"not compiled within {sizes.compile_s:.0f} seconds on this machine"
        return Stepped({}, same_ids=False, trouble=words)
    except ChildFailed as error:
        return Stepped({}, same_ids=False, trouble=str(error))


def _say(report: Report, found: Stepped, name: str, count: int) -> None:
    if found.trouble:
        report.say(f"{name}: {found.trouble}")
        report.data[name] = found.trouble
        return
    for side, values in found.times.items():
        report.times(side if side == name else f"ours, beside the {name}", per(values, count))
    report.ratio("ours", name, found.times)
    alike = "the same" if found.same_ids else "other"
    report.say(f"{name}: {alike} ids; ready after {found.ready_s:.0f} s")
    report.data |= {f"{name}: same ids": found.same_ids, f"{name}: ready_s": found.ready_s}


def per(values: Sequence[float], count: int) -> list[float]:
    """Of one out of `count`."""
    return [value / count for value in values]
