"""Checkpoints into the record: their folders are looked through first, whole and on their base."""

from __future__ import annotations

from clara import registry
from clara.db.connect import OpenDb
from clara.serving.engine import Engine
from clara.settings import Settings
from workers import bootstrap, runs
from workers.runs import Held
from workers.weights import inspect


def register(held: Held, open_db: OpenDb, loader: Engine, config: Settings) -> None:
    """Look through the folder a run names, and write its row.

    Args:
        held: the run; its inputs name `path` and may name `base`.
        open_db: transactions on the record.
        loader: where this process loads weights: hashing a base takes long, and holds up nobody.
        config: of this installation; its base is tried where the noted one is not at hand.
    """
    given = held.run.inputs.get("base", "")
    bases = [given] if given else ["", str(bootstrap.base_model(config))]
    path = held.run.inputs["path"]
    found = loader.submit(lambda: inspect(path, bases, config), urgent=False).result()
    with open_db.begin() as db:
        checkpoint_id = registry.register(db, found)
        result = {"checkpoint_id": str(checkpoint_id), "name": found.name, "path": found.path}
        runs.succeed(db, held, result, runs.timings(held.run), done=1)
