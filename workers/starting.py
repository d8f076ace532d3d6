"""A model worker before its first message: a checkpoint in memory, collections brought up to it."""

from __future__ import annotations

import logging

from sqlalchemy import exists, select

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Collection, Generation, GenerationStatus
from clara.errors import ClaraError, UnknownCollection
from clara.pipeline.compress import lacking
from clara.settings import Settings
from workers import bootstrap
from workers.enqueue import queue_compress, transaction
from workers.following import follow_default
from workers.loaded import Loaded

log = logging.getLogger(__name__)


def start(loaded: Loaded, open_db: OpenDb, config: Settings) -> None:
    """Load the default checkpoint, and bring collections up to it.

    A promoted checkpoint that cannot be loaded stops nothing while another one can answer.

    Raises:
        ClaraError: the checkpoint of the settings cannot be loaded, or none can.
    """
    try:
        with open_db() as db:
            row = bootstrap.default_checkpoint(db)
        loaded.get(row.id)
    except ClaraError as error:
        if config.checkpoint or not _any_loads(loaded, open_db):
            raise
        log.critical("the promoted checkpoint cannot be loaded, others answer: %s", error)
    else:
        _bring_up(open_db, row.id, config)
    queue_missing_latents(open_db)


def queue_missing_latents(open_db: OpenDb) -> int:
    """Queue a compress run for every collection that lacks latents of its active generation."""
    queued = 0
    with open_db() as db:
        active = db.execute(
            select(Generation.collection_id, Generation.fingerprint).where(
                Generation.status == GenerationStatus.ACTIVE
            )
        ).all()
    for collection, fingerprint in active:
        with transaction(open_db) as (db, send):
            if db.scalar(lacking(collection, fingerprint).limit(1)):
                queued += queue_compress(db, send, collection) is not None
    return queued


def _bring_up(open_db: OpenDb, checkpoint_id: object, config: Settings) -> None:
    """First generations where there are none; the others follow."""
    generation = exists().where(Generation.collection_id == Collection.id)
    with open_db() as db:
        new = db.scalars(select(Collection.id).where(~generation)).all()
    with transaction(open_db) as (db, send):
        row = db.get_one(Checkpoint, checkpoint_id)
        for collection in sorted(new):
            try:
                generations.ensure(db, collection, row)
            except UnknownCollection:  # deleted meanwhile
                continue
        follow_default(db, send, row, keep=config.generations_kept)


def _any_loads(loaded: Loaded, open_db: OpenDb) -> bool:
    """Whether some generation can be answered from."""
    with open_db() as db:
        ids = db.scalars(
            select(Generation.checkpoint_id)
            .where(Generation.status.in_(generations.SERVING))
            .distinct()
        ).all()
    for checkpoint_id in ids:
        try:
            loaded.get(checkpoint_id)
        except ClaraError as error:
            log.warning("%s", error)
        else:
            return True
    return False
