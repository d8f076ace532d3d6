"""The status of a collection's documents, brought in line with the generation that answers.

`indexed` means that all latents of that generation are there. A switch changes which generation
that is, and not a single document: they are looked at here, afterwards, and changed a batch to a
transaction. No question waits for it, since none reads the status. Killed anywhere, it begins anew
with those that are still wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, exists, func, literal, select, update
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import (
    Collection,
    Document,
    DocumentStatus,
    Generation,
    GenerationStatus,
    Latent,
    Passage,
)
from clara.errors import Cancelled

BATCH = 1_000
"""Documents changed in one transaction: a switch waits for it at most."""

Now = tuple[str, datetime | None]
"""Fingerprint of the generation that answers, and since when: a switch changes that in any case."""


def settle_documents(open_db: OpenDb, collection: UUID, *, stopped: Callable[[], bool]) -> int:
    """Say of every document whether all latents of the answering generation are there.

    Begins anew where another generation answers meanwhile. Returns how many documents changed.

    Raises:
        Cancelled: `stopped` said so; what was done is kept, and the collection stays unsettled.
    """
    changed = 0
    begun: Now | None = None
    batches: Iterator[Sequence[UUID]] = iter(())
    while True:
        if stopped():
            raise Cancelled("the documents of the collection are not all settled yet")
        if begun is None:
            with open_db() as db:  # holds up no switch
                if (begun := _now(db, collection)) is None:
                    return changed
                batches = _cut(_wrong(db, collection, begun[0]))
        with open_db.begin() as db:
            _keep(db, collection)
            if _now(db, collection) != begun:
                begun = None
                continue
            if batch := next(batches, None):
                changed += _settle(db, batch, begun[0])
                continue
            done = update(Collection).where(Collection.id == collection, Collection.unsettled)
            db.execute(done.values(unsettled=False))
            return changed


def answering(db: Session, collection: UUID) -> str | None:
    """Fingerprint of the generation that answers until the commit: a switch waits for that.

    Taken before any document, in the order in which a deletion of the collection takes them. None
    where nothing answers yet, or the collection is gone.
    """
    _keep(db, collection)
    now = _now(db, collection)
    return now[0] if now else None


def unsettled(collection: UUID) -> Any:
    """Select that finds the collection where its documents are not settled."""
    return select(Collection.id).where(Collection.id == collection, Collection.unsettled)


def _keep(db: Session, collection: UUID) -> None:
    here = select(Collection.id).where(Collection.id == collection)
    db.execute(here.with_for_update(read=True, key_share=True))


def _now(db: Session, collection: UUID) -> Now | None:
    row = db.execute(
        select(Generation.fingerprint, Generation.activated_at).where(
            Generation.collection_id == collection, Generation.status == GenerationStatus.ACTIVE
        )
    ).one_or_none()
    return (row[0], row[1]) if row else None


def _wrong(db: Session, collection: UUID, fingerprint: str) -> list[UUID]:
    """Documents whose status is not as it should be: a look at all of them, and none is locked."""
    here = select(Document.id).where(Document.collection_id == collection)
    return [
        document
        for status, wrong, _ in _states(fingerprint)
        for document in db.scalars(here.where(Document.status == status, wrong))
    ]


def _cut(documents: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for at in range(0, len(documents), BATCH):
        yield documents[at : at + BATCH]


def _settle(db: Session, documents: Sequence[UUID], fingerprint: str) -> int:
    """Of some documents. Waits for no other writer: a document that is being written is left to
    its writer, who has its latents made."""
    return sum(_set_status(db, documents, *state) for state in _states(fingerprint))


def _states(fingerprint: str) -> list[tuple[DocumentStatus, Any, dict[str, Any]]]:
    """A status, when it is wrong, and what is right then."""
    latent = exists().where(Latent.passage_id == Passage.id, Latent.fingerprint == fingerprint)
    waiting = exists().where(Passage.document_id == Document.id, ~latent)
    complete = {"status": DocumentStatus.INDEXED, "indexed_at": func.clock_timestamp()}
    lacking = {"status": DocumentStatus.SEARCHABLE, "indexed_at": None}
    return [
        (DocumentStatus.SEARCHABLE, ~waiting, complete),
        (DocumentStatus.INDEXED, waiting, lacking),
    ]


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
