"""The ingest queue: documents into the indexes, deleted passages out of them."""

from __future__ import annotations

from uuid import UUID

from clara.pipeline.index import Indexing, index_documents, remove_collection, remove_passages
from workers import runs
from workers.enqueue import queue_compress, transaction
from workers.runs import Held


def ingest(held: Held, indexing: Indexing) -> None:
    """Index the documents of a run, then ask for their latents in the transaction that ends it."""
    ids = [UUID(value) for value in held.run.inputs["documents"]]
    passages = index_documents(
        ids,
        indexing,
        on_batch=lambda done: runs.progress(indexing.open_db, held, done, len(ids)),
        stopped=held.stopped,
    )
    with transaction(indexing.open_db) as (db, send):
        runs.succeed(db, held, {"passages": passages}, runs.timings(held.run), done=len(ids))
        if held.run.collection_id:
            queue_compress(db, send, held.run.collection_id)


def purge(held: Held, indexing: Indexing) -> None:
    """Take out what a deletion left: some passages, or a whole collection."""
    collection = UUID(held.run.inputs["collection_id"])
    passages = [UUID(value) for value in held.run.inputs.get("passages", [])]
    if passages:
        remove_passages(collection, passages, indexing)
    else:
        remove_collection(collection, indexing)
    with indexing.open_db.begin() as db:
        runs.succeed(db, held, {"passages": len(passages)}, runs.timings(held.run))
