"""Purge runs: what they are told. `workers/ingesting.py` does what they say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Collection, Run, RunKind
from clara.errors import UnknownCollection
from clara.pipeline import rebuild

PURGE_PASSAGES = 2_000
"""Ids per run, so that its row stays small."""

STRAY_AFTER_S = 60.0
"""Seconds that a lexical index which is not searched any more is left to who still reads from it,
or found it in the record a moment ago and is about to write to it, which would make it again."""


def add_purges(
    db: Session,
    collection: UUID,
    passages: Sequence[UUID],
    *,
    documents: Sequence[UUID] = (),
    wait_s: float = 0.0,
) -> list[Run]:
    """Write the runs that take passages out of a collection's indexes.

    Args:
        passages: whose rows are gone.
        documents: whose rows are gone; whatever else an index holds of them goes too.
        wait_s: seconds until the reconciler sends them by itself.
    """
    parts = [
        [str(id_) for id_ in passages[at : at + PURGE_PASSAGES]]
        for at in range(0, len(passages), PURGE_PASSAGES)
    ]
    of_documents: dict[str, Any] = {"documents": [str(id_) for id_ in documents]}
    # no reference to a collection that was deleted meanwhile
    there = db.scalar(select(Collection.id).where(Collection.id == collection))
    made = [
        Run(
            kind=RunKind.PURGE,
            collection_id=there,
            inputs={"collection_id": str(collection), "passages": part}
            | (of_documents if documents and at == 0 else {}),
            total=len(part),
            queued_at=func.clock_timestamp() + timedelta(seconds=wait_s),
        )
        for at, part in enumerate(parts or ([[]] if documents else []))
    ]
    db.add_all(made)
    db.flush()
    return made


def add_stray_purge(db: Session, collection: UUID) -> None:
    """Write the run that deletes lexical indexes which are neither searched nor built."""
    db.add(
        Run(
            kind=RunKind.PURGE,
            collection_id=collection,
            inputs={"collection_id": str(collection), "strays": True},
            queued_at=func.clock_timestamp() + timedelta(seconds=STRAY_AFTER_S),
        )
    )
    db.flush()


def give_up_builds(open_db: OpenDb) -> int:
    """End the building of lexical indexes that no recompression is at any more: it failed, or was
    cancelled. Returns how many."""
    with open_db() as db:
        found = db.scalars(_abandoned()).all()
    return sum(_give_up(open_db, collection) for collection in found)


def _abandoned() -> Any:
    at_work = exists().where(
        Run.collection_id == Collection.id,
        Run.kind == RunKind.RECOMPRESS,
        Run.status.in_(ACTIVE),
    )
    return select(Collection.id).where(Collection.lexical_building.is_not(None), ~at_work)


def _give_up(open_db: OpenDb, collection: UUID) -> bool:
    try:
        with open_db.begin() as db:
            generations.lock(db, collection)  # none is asked for until the commit
            now = rebuild.words(db, collection)
            if now is None or db.scalar(_abandoned().where(Collection.id == collection)) is None:
                return False
            rebuild.end(db, collection, now.number)
            add_stray_purge(db, collection)
            return True
    except UnknownCollection:  # deleted meanwhile, and its indexes with it
        return False
