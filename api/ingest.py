"""Documents in, one transaction, one run: the same for JSON and for files."""

from __future__ import annotations

from collections.abc import Sequence

from api import schemas
from api.deps import collection_named
from clara.db.connect import OpenDb
from clara.db.tables import RunKind
from clara.documents import Outcome, write_documents
from clara.types import SourceDocument
from workers.enqueue import queue_run, transaction


def accept(open_db: OpenDb, name: str, documents: Sequence[SourceDocument]) -> schemas.Accepted:
    """Store documents and queue what makes them searchable; all of it or nothing.

    Raises:
        UnknownCollection: no collection of that name.
        InvalidInput: two of them have the same external id.
    """
    with transaction(open_db) as (db, send):
        collection = collection_named(db, name, lock="keep")
        written = write_documents(db, collection, documents)
        changed = [str(one.id) for one in written if one.outcome is not Outcome.UNCHANGED]
        run = changed and queue_run(
            db,
            send,
            RunKind.INGEST,
            collection_id=collection.id,
            inputs={"documents": changed},
            total=len(changed),
        )
    return schemas.Accepted(
        run_id=run.id if run else None,
        documents=[
            schemas.WrittenDocument(id=one.id, external_id=one.external_id, outcome=one.outcome)
            for one in written
        ],
    )
