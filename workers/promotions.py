"""A worker that holds a checkpoint ends itself well when another one is promoted.

Whatever started it starts it again, with the new one: no process ever holds two, and no answer
mixes them. Questions wait meanwhile in their queue.
"""

from __future__ import annotations

import logging
from threading import Thread
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from clara import registry
from clara.db.connect import OpenDb
from workers import stopping

log = logging.getLogger(__name__)

LOOK_S = 3.0
"""Seconds between two looks at which checkpoint is active."""


def watch(open_db: OpenDb, loaded: UUID | None) -> Thread:
    """Look again and again whether the active checkpoint is still the one loaded here.

    Args:
        open_db: transactions on the record.
        loaded: id of the active one when this process decided what to load; None without one.
    """
    thread = Thread(target=_watch, args=(open_db, loaded), name="promotions", daemon=True)
    thread.start()
    return thread


def _watch(open_db: OpenDb, loaded: UUID | None) -> None:
    while not stopping.wait(LOOK_S):
        if _changed(open_db, loaded):
            stopping.stop()
            return


def _changed(open_db: OpenDb, loaded: UUID | None) -> bool:
    try:
        with open_db() as db:
            now = registry.active_id(db)
    except SQLAlchemyError:
        log.warning("could not look which checkpoint is active", exc_info=True)
        return False
    if now == loaded:
        return False
    log.warning("checkpoint %s was promoted; this worker ends, to start again with it", now)
    return True
