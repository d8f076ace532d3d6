"""Writing and removing documents: the rows only; indexing follows from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara.db.tables import Collection, Document, DocumentStatus, Passage
from clara.errors import DuplicateCollection, InvalidInput, UnknownCollection
from clara.types import SourceDocument


class Outcome(StrEnum):
    """What writing one document did."""

    CREATED = "created"
    UPDATED = "updated"
    """One of the same external id had other content, or had failed."""
    UNCHANGED = "unchanged"
    """The same content is there already; nothing is done again."""


@dataclass(frozen=True, slots=True)
class Written:
    """One document of a request, in the request's order."""

    id: UUID
    external_id: str
    outcome: Outcome


def content_hash(document: SourceDocument) -> str:
    """SHA-256 in hex of what makes two documents the same: title, text and metadata."""
    content = json.dumps(
        [document.title, document.text, document.metadata], ensure_ascii=False, sort_keys=True
    )
    return hashlib.sha256(content.encode()).hexdigest()


def find_collection(db: Session, name: str) -> Collection:
    """The collection of that name.

    Raises:
        UnknownCollection: there is none.
    """
    found = db.scalar(select(Collection).where(Collection.name == name))
    if found is None:
        raise unknown_collection(name)
    return found


def unknown_collection(name: str) -> UnknownCollection:
    """What is said where no collection has that name."""
    return UnknownCollection(
        f"no collection is named {name!r}",
        field="collection",
        remedy="Create it with POST /v1/collections, or look at GET /v1/collections.",
    )


def create_collection(db: Session, name: str, description: str = "") -> Collection:
    """A new, empty collection.

    Raises:
        DuplicateCollection: the name is taken.
    """
    created: Collection | None = db.scalar(
        insert(Collection)
        .values(name=name, description=description)
        .on_conflict_do_nothing()
        .returning(Collection)
    )
    if created is None:
        raise DuplicateCollection(
            f"a collection named {name!r} exists already",
            field="name",
            remedy="Choose another name, or write into the existing one.",
        )
    return created


def write_documents(
    db: Session, collection: Collection, documents: Sequence[SourceDocument]
) -> list[Written]:
    """Insert or replace documents; each one that is new or changed becomes `pending`.

    Two requests that write the same external id at once end in one row, with the later content.

    Raises:
        InvalidInput: two documents of the request have the same external id.
    """
    rows = [_row(collection.id, document) for document in documents]
    _refuse_twins(documents)
    by_id = {row["external_id"]: row for row in rows}
    statement = insert(Document)
    replaced = ("title", "text", "content_hash", "source", "metadata", "status")
    upsert: Any = statement.on_conflict_do_update(
        index_elements=["collection_id", "external_id"],
        set_={name: statement.excluded[name] for name in replaced}
        | {
            "version": Document.version + 1,
            "error": None,
            "updated_at": func.clock_timestamp(),
            "searchable_at": None,
            "indexed_at": None,
        },
        where=or_(
            Document.content_hash != statement.excluded.content_hash,
            Document.status == DocumentStatus.FAILED,
        ),
    ).returning(Document.external_id, literal_column("(xmax = 0)").label("created"))
    # in one order for every request, so that two of them never wait for each other
    ordered = [by_id[key] for key in sorted(by_id)]
    changed = {
        external_id: Outcome.CREATED if created else Outcome.UPDATED
        for external_id, created in db.execute(upsert, ordered)
    }
    ids = _ids(db, collection.id, list(by_id))
    return [
        Written(
            ids[row["external_id"]],
            row["external_id"],
            changed.pop(row["external_id"], Outcome.UNCHANGED),
        )
        for row in rows
    ]


def passage_ids(db: Session, documents: Sequence[UUID]) -> list[UUID]:
    """Passages of some documents, to take them out of the indexes after the rows are gone."""
    return list(db.scalars(select(Passage.id).where(Passage.document_id.in_(documents))))


def delete_documents(db: Session, documents: Sequence[UUID]) -> list[UUID]:
    """Remove rows and everything that hangs on them. Returns the passages to purge.

    Locks the documents first: a worker that writes their passages is waited for, so none escapes.
    """
    db.execute(select(Document.id).where(Document.id.in_(documents)).with_for_update())
    passages = passage_ids(db, documents)
    db.execute(delete(Document).where(Document.id.in_(documents)))
    return passages


def _row(collection_id: UUID, document: SourceDocument) -> dict[str, Any]:
    digest = content_hash(document)
    return {
        "id": uuid4(),
        "collection_id": collection_id,
        "external_id": document.external_id or f"sha256:{digest}",
        "title": document.title,
        "text": document.text,
        "content_hash": digest,
        "source": document.source,
        "metadata_": document.metadata,
        "status": DocumentStatus.PENDING,
    }


def _refuse_twins(documents: Sequence[SourceDocument]) -> None:
    first: dict[str, int] = {}
    for index, document in enumerate(documents):
        if document.external_id is None:
            continue
        earlier = first.setdefault(document.external_id, index)
        if earlier != index:
            raise InvalidInput(
                f"documents {earlier} and {index} have the same external_id "
                f"{document.external_id!r}",
                field=f"/documents/{index}/external_id",
                remedy="Send one of them, or give them different ids.",
            )


def _ids(db: Session, collection_id: UUID, external_ids: list[str]) -> dict[str, UUID]:
    rows = db.execute(
        select(Document.external_id, Document.id).where(
            Document.collection_id == collection_id, Document.external_id.in_(external_ids)
        )
    )
    return {row.external_id: row.id for row in rows}
