"""What can go wrong, each as one call; drawn by a seeded die."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from uuid import UUID

import redis
from sqlalchemy import func, select

from clara.client import ApiProblem, ApiUnreachable
from clara.db.connect import OpenDb
from clara.db.tables import Run, RunKind
from clara.embedded import client_url
from workers.enqueue import TASKS

from .load import COLLECTION
from .world import World

COPIES = 5
"""Of every message that is delivered twice and more."""

AWAY_S = (0.2, 2.0)
"""Seconds that a server is away, at least and at most."""

BACK = 0.5
"""How often a switch goes back to the generation before."""

Strike = Callable[[World, Random], bool | None]
"""False where nothing happened after all."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    weight: int
    """How often it is drawn, relative to the others."""
    strike: Strike


def _kill(process: str) -> Strike:
    return lambda world, _: world.kill(process)


def _flush(world: World, _: Random) -> None:
    with redis.Redis.from_url(client_url(world.config.redis_url)) as broker:
        broker.flushall()


def _duplicates(world: World, random: Random) -> None:
    """Messages of runs of every kind, ended or not, several times over."""
    from workers.app import app

    open_db = world.database()
    for kind, run_id in _some_runs(open_db, random):
        for _ in range(COPIES):
            app.send_task(TASKS[kind], args=[str(run_id)], retry=False)


def _some_runs(open_db: OpenDb, random: Random) -> list[tuple[RunKind, UUID]]:
    with open_db() as db:
        newest = db.execute(
            select(Run.kind, Run.id).order_by(Run.created_at.desc(), func.random()).limit(40)
        )
        found = [(row.kind, row.id) for row in newest if row.kind in TASKS]
    open_db.kw["bind"].dispose()
    return random.sample(found, min(len(found), 4))


def _cut_elasticsearch(world: World, random: Random) -> None:
    if world.elasticsearch is not None:
        world.elasticsearch.cut()
        time.sleep(random.uniform(*AWAY_S))
        world.elasticsearch.mend()


def _switch(world: World, random: Random) -> bool:
    """Back to the generation before, or on to the other checkpoint, while questions are answered.

    What is refused, since another switch is at work or the API is away, is no fault.
    """
    with world.client() as client:
        try:
            if world.checkpoint is None:
                base = world.config.base_model
                world.checkpoint = client.register_checkpoint(str(world.other), base=base)
            if random.random() < BACK:
                client.roll_back(COLLECTION)
            else:
                client.recompress(COLLECTION, checkpoint=world.checkpoint, gate=False)
        except (ApiProblem, ApiUnreachable):
            return False
    return True


FAULTS = (
    Fault("model worker killed", 12, _kill("model-worker")),
    Fault("CPU worker killed", 12, _kill("cpu-worker")),
    Fault("API killed", 4, _kill("api")),
    Fault("beat killed", 6, _kill("beat")),
    Fault("Valkey killed", 10, lambda world, _: world.restart_valkey()),
    Fault("Postgres crashed", 6, lambda world, _: world.restart_postgres()),
    Fault("broker flushed", 18, _flush),
    Fault("messages doubled", 18, _duplicates),
    Fault("second beat", 6, lambda world, random: world.another_beat(random.uniform(2, 5))),
    Fault("generation switched", 8, _switch),
    Fault("Elasticsearch away", 8, _cut_elasticsearch),
)


def possible(world: World, only: Sequence[str] = ()) -> list[Fault]:
    """Those that this world can have, or some of them by name."""
    return [
        fault
        for fault in FAULTS
        if (fault.name != "Elasticsearch away" or world.elasticsearch is not None)
        and (not only or fault.name in only)
    ]


def draw(faults: list[Fault], random: Random) -> Fault:
    """One of them, by weight."""
    return random.choices(faults, weights=[fault.weight for fault in faults])[0]


def counted(struck: Mapping[str, list[float]]) -> int:
    """Faults in all."""
    return sum(len(times) for times in struck.values())
