"""One run: load in one thread, faults in another, then the comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event

from clara.settings import Settings
from workers.app import app, configure

from . import checks, faults, report
from .checks import Verdict
from .load import COLLECTION, Load
from .world import World, world

BOTH = 0.15
"""How often a second fault strikes before the first is over."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    documents: int
    questions: int
    faults: int
    seconds: float
    """After which no more faults strike."""
    only: Sequence[str] = ()
    """Kinds of faults, by name; all where empty."""


def run(config: Settings, other: Path, size: Size, seed: int, say: Say) -> Verdict:
    """Run it, and say what came of it.

    Args:
        config: of the system, without addresses of Postgres and Valkey.
        other: folder of a checkpoint that generations are switched to and from.
        size: of load and faults.
        seed: of everything that is drawn; timing is not.
        say: takes what a person reads.
    """
    began = time.monotonic()
    with world(config, other) as made:
        configure(app, made.config)  # duplicates are sent from here
        load = Load(made, _die("load", seed), size.documents, size.questions)
        load.begin()
        load.await_end(load.ask())  # every process is up
        over = Event()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(load.run, over.wait)
            struck = _strike(made, load, size, _die("faults", seed), say)
            over.set()
            done.result()
        checks.await_quiet(made)
        verdict = _compare(made, load)
    say(report.told(struck, verdict, seed=seed, wall_s=time.monotonic() - began))
    return verdict


def _compare(made: World, load: Load) -> Verdict:
    open_db = made.database()
    indexes = checks.indexes_of(made.config, open_db)
    verdict = checks.check(open_db, indexes, load.told)
    with made.client() as client:
        client.delete_collection(COLLECTION)  # a cluster outlives this run
    checks.await_quiet(made)
    open_db.kw["bind"].dispose()
    return verdict


def _die(of: str, seed: int) -> Random:
    return Random(f"{of} {seed}")  # noqa: S311 - drawn again from the same seed, no secrets


def _strike(
    made: World, load: Load, size: Size, random: Random, say: Say
) -> dict[str, list[float]]:
    """Fault after fault; each timed until the question before it and the one after are answered."""
    drawn = faults.possible(made, size.only)
    struck: dict[str, list[float]] = {}
    ends = time.monotonic() + size.seconds
    while faults.counted(struck) < size.faults and time.monotonic() < ends:
        some = [faults.draw(drawn, random)]
        if random.random() < BOTH:
            some.append(faults.draw(drawn, random))
        waiting = load.ask()
        began = time.monotonic()
        some = [fault for fault in some if fault.strike(made, random) is not False]
        for question in (waiting, load.ask()):
            load.await_end(question)
        took = time.monotonic() - began
        for fault in some:
            struck.setdefault(fault.name, []).append(took)
        names = ", ".join(fault.name for fault in some) or "nothing after all"
        say(f"{faults.counted(struck)}: {names}: {took:.1f} s")
        time.sleep(random.uniform(0.0, 0.5))
    return struck
