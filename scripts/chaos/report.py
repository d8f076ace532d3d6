"""What a run of faults comes to: a table by kind, the counts, and the line that is the result."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence

from .checks import Verdict

SHOWN = 20
"""Losses told one by one."""


def table(struck: Mapping[str, Sequence[float]]) -> str:
    """Markdown: how often each kind struck, and seconds until both questions were answered, the
    one that waited when it struck and the next one."""
    lines = [
        "| fault | times | s until answered, median | longest |",
        "| --- | --- | --- | --- |",
    ]
    for name in sorted(struck):
        times = struck[name]
        lines.append(
            f"| {name} | {len(times)} | {statistics.median(times):.1f} | {max(times):.1f} |"
        )
    return "\n".join(lines)


def told(
    struck: Mapping[str, Sequence[float]], verdict: Verdict, *, seed: int, wall_s: float
) -> str:
    """Everything to print; the last line is the result."""
    faults = sum(len(times) for times in struck.values())
    losses = [f"lost: {one}" for one in verdict.lost] + [f"doubled: {o}" for o in verdict.doubled]
    parts = [
        table(struck),
        "",
        *losses[:SHOWN],
        *([f"and {len(losses) - SHOWN} more"] if len(losses) > SHOWN else []),
        json.dumps({"seed": seed, "wall_s": round(wall_s), **verdict.counts}),
        f"{faults} faults, {len(verdict.lost)} lost, {len(verdict.doubled)} doubled",
    ]
    return "\n".join(parts)
