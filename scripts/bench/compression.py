"""Passages per second: ours of both kinds against the plain way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from .agree import check
from .bench import Bench
from .clock import Times, in_turn
from .operations import plain, useful
from .report import Report, rounded
from .weights import RANK

TARGET = 4.0


def measure(bench: Bench) -> Report:
    """Compress the same passages every way."""
    passages = bench.passages()
    distance = check(
        "latents",
        bench.memory.compressor.compress(passages),
        bench.plain.compress(passages),
        bench.dtype,
    )
    sides = {
        "memory": partial(bench.memory.compressor.compress, passages),
        "pooled": partial(bench.models["pooled"].compressor.compress, passages),
        "plain": partial(bench.plain.compress, passages),
    }
    sides["pooled"]()  # the other two are warm
    times = in_turn(sides, rounds=bench.sizes.rounds, device=bench.device, warm=False)
    report = _report(passages, bench.memory.tokens.count(passages), times)
    report.say(f"by operations alone {_by_operations(bench, passages):.2f} times")
    report.say(f"memory and plain give the same latents, to {distance:.1g} of their length")
    report.data |= {"distance": distance, "by operations": _by_operations(bench, passages)}
    return report


def _by_operations(bench: Bench, passages: Sequence[str]) -> float:
    """The plain way's against those that are needed: what equally fast operations would give."""
    model, tokens = bench.memory.generator.model, bench.memory.tokens
    needed = [len(row) for row in bench.memory.compressor.kind.ids(passages)]
    filled = [tokens.doc_max_length + 3 + tokens.n_mem] * len(passages)
    return plain(model, filled, rank=RANK) / useful(model, needed)


def _report(passages: Sequence[str], counts: Sequence[int], times: Times) -> Report:
    number, tokens = len(passages), sum(counts)
    words = sum(len(passage.split()) for passage in passages) / number
    report = Report(
        "compression",
        f"Compression: {number} passages of {words:.0f} words ({tokens / number:.0f} tokens) "
        "on average",
    )
    report.data = {"passages": number, "words": words, "tokens": tokens / number}
    for side, values in times.items():
        rates = [number / value for value in values]
        report.figures(side, rates, "passages/s", digits=2)
        report.data[f"{side}_per_s"] = rounded(rates)
    report.ratio("plain", "memory", times, target=TARGET)
    report.ratio("plain", "pooled", times)
    return report
