"""The status of a collection's documents, brought in line with the generation that answers.

`indexed` means that all latents of that generation are there. A switch changes which generation
that is, and not a single document: looking at all of them is done here, afterwards, a batch to a
transaction. No question waits for it, since none reads the status. Killed anywhere, it begins anew,
and what is right already is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, exists, func, literal, select, tuple_, update
from sqlalchemy.orm import Session

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, DocumentStatus, Latent, Passage
from clara.errors import Cancelled

BATCH = 1_000
"""Documents looked at in one transaction: a switch waits for it at most."""

At = tuple[datetime, UUID]
"""Where a batch ended: the order is that of an index."""


def settle_documents(open_db: OpenDb, collection: UUID, *, stopped: Callable[[], bool]) -> int:
    """Say of every document whether all latents of the answering generation are there.

    Begins anew where another generation answers meanwhile. Returns how many documents changed.

    Raises:
        Cancelled: `stopped` said so; what was done is kept, and the collection stays unsettled.
    """
    changed, of, after = 0, None, None
    while True:
        if stopped():
            raise Cancelled("the documents of the collection are not all settled yet")
        with open_db.begin() as db:
            now = answering(db, collection)
            if now is None:
                return changed
            if now != of:
                of, after = now, None
            batch = _batch(db, collection, after)
            if not batch:
                db.execute(
                    update(Collection)
                    .where(Collection.id == collection, Collection.unsettled)
                    .values(unsettled=False)
                )
                return changed
            changed += _settle(db, [id_ for _, id_ in batch], now)
            after = batch[-1]


def answering(db: Session, collection: UUID) -> str | None:
    """Fingerprint of the generation that answers until the commit: a switch waits for that.

    Taken before any document, in the order in which a deletion of the collection takes them. None
    where nothing answers yet, or the collection is gone.
    """
    here = select(Collection.id).where(Collection.id == collection)
    db.execute(here.with_for_update(read=True, key_share=True))
    active = generations.active(db, collection)
    return active.fingerprint if active else None


def unsettled(collection: UUID) -> Any:
    """Select that finds the collection where its documents are not settled."""
    return select(Collection.id).where(Collection.id == collection, Collection.unsettled)


def _batch(db: Session, collection: UUID, after: At | None) -> list[At]:
    wanted = select(Document.created_at, Document.id).where(Document.collection_id == collection)
    if after is not None:
        wanted = wanted.where(tuple_(Document.created_at, Document.id) > after)
    rows = db.execute(wanted.order_by(Document.created_at, Document.id).limit(BATCH))
    return [(row.created_at, row.id) for row in rows]


def _settle(db: Session, documents: Sequence[UUID], fingerprint: str) -> int:
    """Of some documents. Waits for no other writer: a document that is being written is left to
    its writer, who has its latents made."""
    latent = exists().where(Latent.passage_id == Passage.id, Latent.fingerprint == fingerprint)
    waiting = exists().where(Passage.document_id == Document.id, ~latent)
    complete = {"status": DocumentStatus.INDEXED, "indexed_at": func.clock_timestamp()}
    lacking = {"status": DocumentStatus.SEARCHABLE, "indexed_at": None}
    changed = _set_status(db, documents, DocumentStatus.SEARCHABLE, ~waiting, complete)
    return changed + _set_status(db, documents, DocumentStatus.INDEXED, waiting, lacking)


def _set_status(
    db: Session,
    documents: Sequence[UUID],
    status: DocumentStatus,
    wrong: Any,
    values: dict[str, Any],
) -> int:
    """In two statements: a subquery that locks is done again for every row it is compared with."""
    found = db.scalars(
        select(Document.id)
        .where(_among(documents), Document.status == status, wrong)
        .order_by(Document.id)
        .with_for_update(skip_locked=True)
    ).all()
    if found:
        without_session = {"synchronize_session": False}
        change = update(Document).where(_among(found)).values(values)
        db.execute(change, execution_options=without_session)
    return len(found)


def _among(documents: Sequence[UUID]) -> Any:
    return Document.id == any_(literal(list(documents), ARRAY(Uuid)))
