"""Time to the first token: cached latents against the same model reading the passages as text."""

from __future__ import annotations

from functools import partial

from .bench import Bench
from .clock import in_turn
from .report import Report
from .texts import questions

TARGETS = {5: 10.0, 20: 20.0}
"""Times sooner, by passages read."""
CLAIMS = {5: (150, 45), 20: (800, 120)}
"""What users were told, in milliseconds as text and from latents; on which hardware is not said."""


def measure(bench: Bench) -> list[Report]:
    """One table per number of passages."""
    return [_measure(bench, count) for count in bench.sizes.read]


def _measure(bench: Bench, count: int) -> Report:
    passages = bench.to_read(count)
    latents = bench.latents(passages)
    (question,) = questions(1)
    sides = {
        kind: partial(
            models.generator.answer_from_latents, question, latents[kind], max_new_tokens=1
        )
        for kind, models in bench.models.items()
    }
    text = partial(bench.memory.generator.answer_from_text, question, passages, max_new_tokens=1)
    times = in_turn(
        {**sides, "text": text},
        rounds=bench.sizes.rounds,
        device=bench.device,
        warm=count == min(bench.sizes.read),  # the longer ones only take longer
    )
    prompts = {
        kind: models.generator.prompt_from_latents(question, latents[kind])
        for kind, models in bench.models.items()
    }
    prompts["text"] = bench.memory.generator.prompt_from_text(question, passages)
    tokens = {side: len(prompt) for side, prompt in prompts.items()}
    length = sum(bench.memory.tokens.count(passages)) / count
    report = Report(f"first token {count}", f"First token: {count} passages of {length:.0f} tokens")
    report.data = {"passages": count, "tokens": length, "prompt_tokens": tokens}
    for side, values in times.items():
        report.times(side, values, note=f", {tokens[side]} tokens in all")
    for kind in sides:
        report.ratio("text", kind, times, target=TARGETS.get(count))
    if count in CLAIMS:
        slow, fast = CLAIMS[count]
        report.say(f"users were told: {slow} to {fast} ms, {slow / fast:.1f} times")
        report.data["told_ms"] = [slow, fast]
    return report
