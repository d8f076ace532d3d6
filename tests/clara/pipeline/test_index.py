"""Indexing on real stores: Postgres, Tantivy, FAISS, and a tiny encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, DocumentStatus, Passage
from clara.documents import delete_documents, find_collection, write_documents
from clara.errors import IndexUnavailable
from clara.pipeline.index import Indexing, remove_documents
from clara.retrieval.tantivy import TantivyIndex
from clara.serving.encoding import EncoderOnEngine
from clara.types import SourceDocument
from tests.clara.pipeline.conftest import index

TEXT = "Tea came from Canton. Bees dance on the comb. Ice forms on the sea. " * 4


def write(db: OpenDb, *documents: SourceDocument) -> list[UUID]:
    with db.begin() as session:
        shop = find_collection(session, "shop")
        return [written.id for written in write_documents(session, shop, documents)]


def passages(db: OpenDb) -> set[UUID]:
    with db() as session:
        return set(session.scalars(select(Passage.id)))


def status(db: OpenDb, document: UUID) -> DocumentStatus:
    with db() as session:
        row = session.get(Document, document)
    assert row
    return row.status


def test_record_and_both_indexes_hold_the_same_passages(
    db: OpenDb, indexing: Indexing, collection: UUID
) -> None:
    ids = write(db, SourceDocument(TEXT, title="Notes"), SourceDocument("Short."))
    written = index(ids, indexing)
    assert written == len(passages(db)) > 2
    assert indexing.lexical.count(collection) == indexing.dense.count(collection) == written
    assert {status(db, one) for one in ids} == {DocumentStatus.SEARCHABLE}


def test_indexing_twice_writes_the_same(db: OpenDb, indexing: Indexing, collection: UUID) -> None:
    ids = write(db, SourceDocument(TEXT))
    index(ids, indexing)
    before = passages(db)
    with db.begin() as session:
        document = session.get(Document, ids[0])
        assert document
        document.status = DocumentStatus.PENDING  # as after a crash before the commit
    index(ids, indexing)
    assert passages(db) == before
    assert indexing.lexical.count(collection) == indexing.dense.count(collection) == len(before)


def test_replacing_a_document_leaves_nothing_of_the_old_one(
    db: OpenDb, indexing: Indexing, collection: UUID
) -> None:
    ids = write(db, SourceDocument(TEXT, external_id="1"))
    index(ids, indexing)
    write(db, SourceDocument("Only this.", external_id="1"))
    index(ids, indexing)
    assert len(passages(db)) == 1
    assert indexing.lexical.count(collection) == indexing.dense.count(collection) == 1
    assert indexing.lexical.search(collection, "Canton", limit=5) == []


def test_a_written_document_is_searched_as_it_was_until_its_new_text_is_indexed(
    db: OpenDb, indexing: Indexing, collection: UUID
) -> None:
    old = SourceDocument("Tea came.", title="Then", external_id="1", metadata={"year": 1})
    new = SourceDocument("Coffee.", title="Now", external_id="1", metadata={"year": 2})
    ids = write(db, old)
    index(ids, indexing)
    write(db, new)
    assert contents(db) == [("Then", "Tea came.", {"year": 1})]
    index(ids, indexing)
    assert contents(db) == [("Now", "Coffee.", {"year": 2})]


def contents(db: OpenDb) -> list[tuple[str, str, dict[str, Any]]]:
    with db() as session:
        return [(p.title, p.text, p.metadata_) for p in session.scalars(select(Passage))]


def test_the_same_text_written_again_later_shares_no_passage_with_its_first_version(
    db: OpenDb, indexing: Indexing, collection: UUID
) -> None:
    """Or what takes the first version out of the indexes late would take out the third."""
    seen: list[UUID] = []
    for text in ("Tea.", "Coffee.", "Tea."):
        index(write(db, SourceDocument(text, external_id="1")), indexing)
        seen += passages(db)
    assert len(set(seen)) == 3
    assert indexing.lexical.held(collection) == {seen[-1]} == indexing.dense.held(collection)


def test_what_was_replaced_is_told_in_the_transaction_and_settled_after_it_left_the_indexes(
    db: OpenDb, indexing: Indexing, collection: UUID
) -> None:
    ids = write(db, SourceDocument("Tea.", external_id="1"))
    index(ids, indexing)
    (old,) = passages(db)
    write(db, SourceDocument("Coffee.", external_id="1"))
    told: list[object] = []

    def on_replaced(session: Session, of: UUID, gone: Sequence[UUID]) -> Callable[[], None]:
        assert set(session.scalars(select(Passage.id))).isdisjoint(gone)
        assert passages(db) == {old}  # for everybody else
        told.append((of, list(gone)))
        return lambda: told.append(old in indexing.lexical.held(collection))

    index(ids, indexing, on_replaced=on_replaced)
    assert told == [(collection, [old]), False]


def test_new_documents_replace_nothing(db: OpenDb, indexing: Indexing, collection: UUID) -> None:
    told: list[object] = []
    index(
        write(db, SourceDocument("Tea."), SourceDocument("Coffee.")),
        indexing,
        on_replaced=lambda *of: lambda: told.append(of),
    )
    assert told == []
    with db() as session:
        assert session.get_one(Collection, collection).replaced == 0


def test_a_second_copy_of_a_run_takes_nothing_from_a_version_that_is_still_searched(
    db: OpenDb, indexing: Indexing, collection: UUID
) -> None:
    """The first copy has committed, the document is written again, then the second one ends."""
    ids = write(db, SourceDocument("Tea.", external_id="1"))

    class Overtaken(EncoderOnEngine):
        def encode(self, texts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            index(ids, indexing)
            write(db, SourceDocument("Coffee.", external_id="1"))
            return super().encode(texts)

    slow = Overtaken(indexing.encoder.encoder, indexing.encoder.engine)
    index(ids, replace(indexing, encoder=slow))
    assert passages(db) == indexing.lexical.held(collection) == indexing.dense.held(collection)
    assert [text for _, text, _ in contents(db)] == ["Tea."]


def test_a_deleted_document_leaves_nothing_although_a_worker_died_on_it(
    db: OpenDb, indexing: Indexing, collection: UUID
) -> None:
    kept, gone = write(db, SourceDocument("Tea."), SourceDocument("Coffee."))

    class Dying:
        """Reads, and dies where it should write."""

        def __call__(self) -> Session:
            return db()

        def begin(self) -> Any:
            raise KeyboardInterrupt

    index([kept], indexing)
    dying: Any = Dying()
    with pytest.raises(KeyboardInterrupt):
        index([gone], replace(indexing, open_db=dying))
    assert len(indexing.lexical.held(collection, gone)) == 1
    with db.begin() as session:
        assert delete_documents(session, [gone]) == []
    remove_documents(collection, [gone], [], indexing)
    assert passages(db) == indexing.lexical.held(collection) == indexing.dense.held(collection)


def test_a_document_replaced_while_it_is_indexed_keeps_waiting_for_its_own_run(
    db: OpenDb, indexing: Indexing, collection: UUID
) -> None:
    ids = write(db, SourceDocument(TEXT, external_id="1"))

    class Replacing(EncoderOnEngine):
        def encode(self, texts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            write(db, SourceDocument("Newer.", external_id="1"))
            return super().encode(texts)

    slow = Replacing(indexing.encoder.encoder, indexing.encoder.engine)
    index(ids, replace(indexing, encoder=slow))
    assert status(db, ids[0]) is DocumentStatus.PENDING
    assert passages(db) == set()
    assert indexing.lexical.count(collection) == indexing.dense.count(collection) == 0


def test_a_document_whose_run_is_cancelled_while_it_is_indexed_leaves_no_passage(
    db: OpenDb, indexing: Indexing, collection: UUID
) -> None:
    ids = write(db, SourceDocument(TEXT, external_id="1"))

    class Cancelling(EncoderOnEngine):
        def encode(self, texts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            with db.begin() as session:
                session.get_one(Document, ids[0]).status = DocumentStatus.FAILED
            return super().encode(texts)

    slow = Cancelling(indexing.encoder.encoder, indexing.encoder.engine)
    index(ids, replace(indexing, encoder=slow))
    assert status(db, ids[0]) is DocumentStatus.FAILED
    assert passages(db) == set()
    assert indexing.lexical.count(collection) == indexing.dense.count(collection) == 0


def test_an_index_that_is_away_leaves_documents_pending(
    db: OpenDb, indexing: Indexing, collection: UUID, tmp_path: Path
) -> None:
    ids = write(db, SourceDocument(TEXT))
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the index wants a folder")
    with pytest.raises(IndexUnavailable):
        index(ids, replace(indexing, lexical=TantivyIndex(blocked)))
    assert status(db, ids[0]) is DocumentStatus.PENDING
    assert passages(db) == set()
