"""Documents: write, list, read, delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import Row, Select, exists, select
from sqlalchemy.orm import Session, defer

from api import checks, schemas
from api.deps import Config, Db, collection_named
from api.ingest import accept
from api.paging import Page, is_after, next_page
from api.strict_body import StrictRoute
from clara.db.tables import Collection, Document, DocumentStatus, Latent, Passage, RunKind
from clara.documents import delete_documents
from clara.errors import UnknownDocument
from workers.enqueue import transaction
from workers.purging import add_purges

router = APIRouter(prefix="/v1", tags=["documents"], route_class=StrictRoute)


class DocumentPage(Page):
    """Which documents to list."""

    status: DocumentStatus | None = Field(default=None, description="Only those.")


@router.post(
    "/collections/{name}/documents",
    status_code=202,
    summary="Write documents",
    responses=schemas.problems(400, 404, 413, 415, 422),
)
def write(open_db: Db, config: Config, name: str, body: schemas.NewDocuments) -> schemas.Accepted:
    """Store documents, all or none; one run makes the new and changed ones searchable."""
    return accept(open_db, name, checks.documents(body, config))


@router.get(
    "/collections/{name}/documents",
    summary="List the documents of a collection",
    responses=schemas.problems(404, 422),
)
def list_documents(
    open_db: Db, name: str, page: Annotated[DocumentPage, Query()]
) -> schemas.Documents:
    """A page of documents without their texts, oldest first."""
    with open_db() as db:
        collection = collection_named(db, name)
        statement = (
            select(Document)
            .options(defer(Document.text, raiseload=True))
            .where(Document.collection_id == collection.id)
            .order_by(Document.created_at, Document.id)
            .limit(page.limit + 1)
        )
        if page.status:
            statement = statement.where(Document.status == page.status)
        if page.after:
            statement = statement.where(is_after(page.after, Document))
        rows = list(db.scalars(statement))
    following = next_page(rows, page.limit)
    return schemas.Documents(
        documents=[schemas.Document(**_shown(row, collection.name)) for row in rows],
        next=following,
    )


@router.get(
    "/documents/{document_id}", summary="Read a document", responses=schemas.problems(404, 422)
)
def read(open_db: Db, document_id: UUID) -> schemas.DocumentDetail:
    """A document with its text."""
    with open_db() as db:
        statement = select(Document, Collection.name).join(
            Collection, Document.collection_id == Collection.id
        )
        row = db.execute(statement.where(Document.id == document_id)).one_or_none()
    if row is None:
        raise _unknown(document_id)
    document, name = row
    return schemas.DocumentDetail(**_shown(document, name), text=document.text)


@router.get(
    "/documents/{document_id}/passages",
    summary="List the passages of a document",
    responses=schemas.problems(404, 422),
)
def passages(open_db: Db, document_id: UUID) -> schemas.Passages:
    """How a document is split, and which of its passages have a latent."""
    with open_db() as db:
        document = _found(db, select(Document).where(Document.id == document_id), document_id)
        found: Sequence[Row[Passage, bool]] = []
        # spans of a document that was replaced, but not split again yet, are of the text before
        if document.status in (DocumentStatus.SEARCHABLE, DocumentStatus.INDEXED):
            has_latent = exists().where(Latent.passage_id == Passage.id)
            statement = select(Passage, has_latent).where(Passage.document_id == document_id)
            found = db.execute(statement.order_by(Passage.start)).all()
    return schemas.Passages(
        document_id=document_id,
        passages=[
            schemas.Passage(
                id=passage.id,
                start=passage.start,
                end=passage.end,
                tokens=passage.tokens,
                text=document.text[passage.start : passage.end],
                has_latent=latent,
            )
            for passage, latent in found
        ],
    )


@router.delete(
    "/documents/{document_id}",
    status_code=202,
    summary="Delete a document",
    responses=schemas.problems(404, 422),
)
def remove(open_db: Db, document_id: UUID) -> schemas.Purging:
    """Delete a document and the citations of it now; runs clear the indexes."""
    with transaction(open_db) as (db, send):
        # The lock waits for a worker that is just writing passages of it: they are purged too.
        row = select(Document).where(Document.id == document_id)
        collection_id = _found(
            db, row.options(defer(Document.text)).with_for_update(), document_id
        ).collection_id
        gone = delete_documents(db, [document_id])
        runs = add_purges(db, collection_id, gone, documents=[document_id])
        for run in runs:
            send(RunKind.PURGE, run.id)
    return schemas.Purging(run_ids=[run.id for run in runs])


def _found(db: Session, statement: Select[Document], document_id: UUID) -> Document:
    document = db.scalar(statement)
    if document is None:
        raise _unknown(document_id)
    return document


def _unknown(document_id: UUID) -> UnknownDocument:
    return UnknownDocument(
        f"no document has the id {document_id}",
        field="document_id",
        remedy="Look at GET /v1/collections/{name}/documents.",
    )


def _shown(document: Document, collection: str) -> dict[str, Any]:
    return {
        "id": document.id,
        "collection": collection,
        "external_id": document.external_id,
        "title": document.title,
        "source": document.source,
        "metadata": document.metadata_,
        "status": document.status,
        "error": schemas.public(document.error),
        "created_at": document.created_at,
        "updated_at": document.updated_at,
        "searchable_at": document.searchable_at,
        "indexed_at": document.indexed_at,
    }
