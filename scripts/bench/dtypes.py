"""bfloat16 against float32, where the device computes in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from clara.model.backbone import pick_dtype

from .agree import worst
from .bench import Bench
from .clock import in_turn
from .report import Report
from .texts import questions


def measure(bench: Bench) -> Report:
    """Compression, and an answer from its latents, in both."""
    report = Report("dtypes", "bfloat16 against float32")
    if pick_dtype(bench.device) != torch.bfloat16:
        words = "not measured: this processor has no instructions for bfloat16"
        report.say(words)
        report.data["trouble"] = words
        return report
    both = {
        name: bench.memory if bench.dtype == dtype else bench.setup.models("memory", dtype=dtype)
        for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32))
    }
    passages = bench.passages()
    latents = {name: models.compressor.compress(passages) for name, models in both.items()}
    compressing = {
        name: partial(models.compressor.compress, passages) for name, models in both.items()
    }
    answering = {
        name: partial(
            models.generator.answer_from_latents,
            questions(1)[0],
            latents[name][: bench.sizes.top_k],
            max_new_tokens=bench.sizes.new_tokens,
        )
        for name, models in both.items()
    }
    _compare(report, bench, "compression", compressing)
    _compare(report, bench, "answer", answering)
    distance = worst(latents["bfloat16"], latents["float32"])
    report.say(f"latents differ by up to {distance:.2g} of their length")
    report.data["distance"] = distance
    return report


def _compare(
    report: Report, bench: Bench, what: str, sides: Mapping[str, Callable[[], object]]
) -> None:
    named = {f"{name} {what}": call for name, call in sides.items()}
    times = in_turn(named, rounds=bench.sizes.rounds, device=bench.device)
    for side, values in times.items():
        report.times(side, values)
    report.ratio(f"float32 {what}", f"bfloat16 {what}", times)
