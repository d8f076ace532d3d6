"""What API and queue cost: per answer, per question accepted, and in a switch of generations.

Usage: python scripts/bench_queue.py [--only overhead enqueue switch] [--questions 200]
           [--rate 300] [--seconds 20] [--connections 16]
           [--processes 1] [--switch-rate 5]

Starts systems of its own with tiny random models, so that next to nothing is the model's. Prints
tables, then one line of JSON. Run it from the root of the project.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]  # the tiny models are those of the tests

from chaos.world import DOC_MAX_LENGTH, config_of  # noqa: E402
from queueing import enqueue, overhead, switching, system  # noqa: E402

from clara.client import Client  # noqa: E402
from clara.settings import Settings  # noqa: E402
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder  # noqa: E402

Found = dict[str, Any]


def main() -> None:
    """Measure and print."""
    arguments = _parser().parse_args()
    found: Found = {}
    for name in arguments.only:
        with system.folder() as home:
            config = config_of(
                home, base=tiny_base(home / "base"), encoder=tiny_encoder(home / "encoder")
            )
            config = config.model_copy(update={"api_processes": arguments.processes})
            found[name] = SECTIONS[name](config, arguments)
    print(json.dumps(found))


def _overhead(config: Settings, arguments: argparse.Namespace) -> Found:
    with system.running(config) as running, Client(running.api) as client:
        system.fill(client, 100)
        times = overhead.measure(running, client, questions=arguments.questions)
    added = [one - other for one, other in zip(times["http"], times["library"], strict=True)]
    rows = {"through HTTP": times["http"], "library": times["library"], "added": added}
    return _table("An answer of 4 tokens, tiny models, ms", rows, "target: 10 and 30 added")


def _enqueue(config: Settings, arguments: argparse.Namespace) -> Found:
    with system.running(config, only=["api"]) as running, Client(running.api) as client:
        sent = enqueue.measure(
            running,
            client,
            rate=arguments.rate,
            seconds=arguments.seconds,
            connections=arguments.connections,
        )
    accepted = max(len(sent.seconds), 1)
    cpu = {name: _2(1000 * spent / accepted) for name, spent in sent.processor.items()}
    title = (
        f"Questions accepted, {sent.rate:.0f} a second, {sent.refused} refused, ms\n"
        f"of processor each: {', '.join(f'{name} {ms}' for name, ms in cpu.items())}"
    )
    told = _table(title, {"POST /v1/questions": sent.seconds}, "target: 300 a second, p99 25")
    return told | {"rate": _2(sent.rate), "refused": sent.refused, "processor": cpu}


def _switch(config: Settings, arguments: argparse.Namespace) -> Found:
    base = Path(config.base_model)
    other = tiny_checkpoint(base.parent / "other", base, doc_max_length=DOC_MAX_LENGTH)
    with system.running(config) as running, Client(running.api) as client:
        system.fill(client, 100)
        found = switching.measure(
            running, client, other, rate=arguments.switch_rate, seconds=arguments.seconds
        )
    print(
        f"\n{found.switches} switches while {found.asked} questions were asked, "
        f"{arguments.switch_rate:g} a second"
        "\n| asked | refused | failed | mixing generations | answered by generation |"
        "\n| --- | --- | --- | --- | --- |"
        f"\n| {found.asked} | {found.refused} | {found.failed.total()} | {found.mixed} "
        f"| {dict(found.by_generation)} |"
        f"\n{found.telling} of {switching.DISTINCT} different questions can tell a mixed answer"
        "\ntarget: none failed, none mixed"
    )
    return vars(found)


SECTIONS: dict[str, Callable[[Settings, argparse.Namespace], Found]] = {
    "overhead": _overhead,
    "enqueue": _enqueue,
    "switch": _switch,
}


def _table(title: str, rows: Mapping[str, Sequence[float]], target: str) -> Found:
    """Seconds as milliseconds: median, 99th percentile, longest."""
    print(f"\n{title}\n| what | n | p50 | p99 | longest |\n| --- | --- | --- | --- | --- |")
    found: Found = {}
    for name, seconds in rows.items():
        ms = [1000 * one for one in seconds]
        p99 = statistics.quantiles(ms, n=100)[98]
        found[name] = {"n": len(ms), "p50": _2(statistics.median(ms)), "p99": _2(p99)}
        print(
            f"| {name} | {len(ms)} | {found[name]['p50']} | {found[name]['p99']} | {_2(max(ms))} |"
        )
    print(target)
    return found


def _2(value: float) -> float:
    return round(value, 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What the queue costs.")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rate", type=float, default=300, help="questions a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=16, help="of the sender")
    parser.add_argument("--processes", type=int, default=1, help="of the API")
    parser.add_argument("--switch-rate", type=float, default=5, help="questions a second")
    return parser


if __name__ == "__main__":
    main()
