"""The ingest queue: documents into the indexes, deleted passages out of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from clara.db.tables import Document, Run, RunStatus
from clara.pipeline.index import (
    Indexing,
    index_documents,
    remove_collection,
    remove_documents,
    remove_passages,
)
from clara.pipeline.rebuild import drop_strays
from workers import runs
from workers.enqueue import queue_compress, transaction
from workers.purging import add_purges
from workers.runs import Held

PURGE_AFTER_S = 60.0
"""Seconds until somebody else takes out what was replaced: whoever replaced it does so at once."""


def ingest(held: Held, indexing: Indexing) -> None:
    """Index the documents of a run, then ask for their latents in the transaction that ends it."""
    ids = [UUID(value) for value in held.run.inputs["documents"]]
    if held.run.attempts > 1:
        _forget_deleted(ids, held.run.collection_id, indexing)
    passages = index_documents(
        ids,
        indexing,
        on_batch=lambda done: runs.progress(indexing.open_db, held, done, len(ids)),
        stopped=held.stopped,
        on_replaced=lambda db, collection, gone: _outbox(db, collection, gone, indexing),
    )
    with transaction(indexing.open_db) as (db, send):
        runs.succeed(db, held, {"passages": passages}, runs.timings(held.run), done=len(ids))
        if held.run.collection_id:
            queue_compress(db, send, held.run.collection_id)


def purge(held: Held, indexing: Indexing) -> None:
    """Take out what a deletion left: some passages, whole documents, or a whole collection; or
    lexical indexes that gave way to others."""
    collection = UUID(held.run.inputs["collection_id"])
    passages = [UUID(value) for value in held.run.inputs.get("passages", [])]
    documents = [UUID(value) for value in held.run.inputs.get("documents", [])]
    if held.run.inputs.get("strays"):
        drop_strays(indexing.open_db, collection, indexing.lexical)
    elif documents:
        remove_documents(collection, documents, passages, indexing)
    elif passages:
        remove_passages(collection, passages, indexing)
    else:
        remove_collection(collection, indexing)
    with indexing.open_db.begin() as db:
        runs.succeed(db, held, {"passages": len(passages)}, runs.timings(held.run))


def _outbox(
    db: Session, collection: UUID, passages: Sequence[UUID], indexing: Indexing
) -> Callable[[], None]:
    """Purge runs that are due only if this worker does not get to it; it then takes them back."""
    ids = [run.id for run in add_purges(db, collection, passages, wait_s=PURGE_AFTER_S)]
    return lambda: _settle(ids, indexing)


def _settle(purges: Sequence[UUID], indexing: Indexing) -> None:
    with indexing.open_db.begin() as db:
        db.execute(delete(Run).where(Run.id.in_(purges), Run.status == RunStatus.QUEUED))


def _forget_deleted(documents: Sequence[UUID], collection: UUID | None, indexing: Indexing) -> None:
    """Clear what a worker that died wrote of documents that were deleted since."""
    if collection is None:
        return
    with indexing.open_db() as db:
        there = set(db.scalars(select(Document.id).where(Document.id.in_(documents))))
    if gone := [id_ for id_ in documents if id_ not in there]:
        remove_documents(collection, gone, [], indexing)
