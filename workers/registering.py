"""Checkpoints into the record: their folders are looked through first, whole and on their base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clara import registry
from clara.db.connect import OpenDb
from clara.errors import CheckpointMismatch, ClaraError, ModelMissing
from clara.registry import Inspected
from clara.serving.engine import Engine
from clara.settings import Settings
from workers import bootstrap, runs
from workers.runs import Held

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint


def register(held: Held, open_db: OpenDb, engine: Engine, config: Settings) -> None:
    """Look through the folder a run names, and write its row.

    Args:
        held: the run; its inputs name `path` and may name `base`.
        open_db: transactions on the record.
        engine: where this process computes.
        config: of this installation; its base is tried where the noted one is not at hand.
    """
    given = held.run.inputs.get("base", "")
    bases = [given] if given else ["", str(bootstrap.base_model(config))]
    path = held.run.inputs["path"]
    found = engine.submit(lambda: inspect(path, bases, config), urgent=False).result()
    with open_db.begin() as db:
        checkpoint_id = registry.register(db, found)
        result = {"checkpoint_id": str(checkpoint_id), "name": found.name, "path": found.path}
        runs.succeed(db, held, result, runs.timings(held.run), done=1)


def inspect(path: str, bases: Sequence[str], config: Settings) -> Inspected:
    """Everything a row says of a checkpoint; computes hashes, and nothing a model would.

    Args:
        path: folder or Hub name; a Hub name stands for the folder it was fetched to.
        bases: folders or Hub names to try, in this order; an empty one is what the checkpoint
            notes.
        config: of this installation.
    Raises:
        ClaraError: the checkpoint is damaged, or fits none of the bases.
    """
    from clara.model import checkpoint as checkpoints
    from clara.model.backbone import pick_device, pick_dtype
    from clara.model.fingerprints import fingerprint, weights_hash
    from clara.model.fit import check_fits
    from clara.model.hub import local_folder

    folder = local_folder(path).resolve()
    found = checkpoints.load(folder)
    base, base_folder, hashed = _base(found, bases, config)
    check_fits(found, base_folder)
    dtype = pick_dtype(pick_device(config.device))
    return Inspected(
        name=found.name,
        fingerprint=fingerprint(found, hashed, dtype=dtype),
        weights_hash=weights_hash(found, hashed),
        base=base,
        trained=found.trained,
        config=found.config.numbers(),
        path=str(folder),
    )


def _base(found: Checkpoint, bases: Sequence[str], config: Settings) -> tuple[str, Path, str]:
    """The first base that is at hand and the one trained on: as named, its folder and its hash."""
    from clara.model.fit import hash_of_base
    from clara.model.hub import local_folder

    refused: ClaraError | None = None
    for named in bases:
        base = named or found.config.base
        try:
            folder = local_folder(base)
            return base, folder, hash_of_base(found, folder, cache=config.home / "hashes")
        except (ModelMissing, CheckpointMismatch) as error:
            refused = refused or error
    assert refused is not None  # noqa: S101 - there is always one to try
    raise refused
