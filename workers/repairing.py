"""Latents that were found damaged are made anew at once, not when something else is compressed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from clara.db.connect import OpenDb
from clara.db.tables import Passage
from workers.enqueue import queue_compress, transaction

log = logging.getLogger(__name__)


def queue_repair(open_db: OpenDb, passages: Sequence[UUID]) -> list[UUID]:
    """Make sure a compress run will see that these passages lack their latents.

    Until it has, they are answered from text. Where the database does not answer that is logged:
    the next compress run of the collection makes them too.

    Returns:
        Ids of new runs, one for each collection that had none.
    """
    try:
        with transaction(open_db) as (db, send):
            collections = db.scalars(
                select(Passage.collection_id).where(Passage.id.in_(passages)).distinct()
            )
            queued = [queue_compress(db, send, collection) for collection in sorted(collections)]
            return [run for run in queued if run is not None]
    except SQLAlchemyError as error:
        log.warning("damaged latents of %d passages wait for a repair: %s", len(passages), error)
        return []
