"""Indexing on real stores: Postgres, Tantivy, FAISS, and a tiny encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from clara.db.connect import OpenDb
from clara.db.tables import Document, DocumentStatus, Passage
from clara.documents import create_collection, find_collection, write_documents
from clara.errors import IndexUnavailable
from clara.passages import FastTokenizer
from clara.pipeline.index import Indexing, index_documents
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.tantivy import TantivyIndex
from clara.serving.encoding import EncoderOnEngine
from clara.serving.engine import Engine
from clara.types import SourceDocument
from tests.tiny import tiny_base, tiny_encoder

TEXT = "Tea came from Canton. Bees dance on the comb. Ice forms on the sea. " * 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return tiny_base(folder / "base"), tiny_encoder(folder / "encoder")


@pytest.fixture
def indexing(db: OpenDb, models: tuple[Path, Path], tmp_path: Path) -> Iterator[Indexing]:
    base, encoder_folder = models
    engine = Engine()
    encoder = SentenceEncoder(encoder_folder)
    yield Indexing(
        open_db=db,
        lexical=TantivyIndex(tmp_path / "tantivy"),
        dense=FaissIndex(db, encoder=encoder.name, dimension=encoder.dimension),
        encoder=EncoderOnEngine(encoder, engine),
        tokenizer=FastTokenizer.from_folder(base),
        doc_max_length=32,
    )
    engine.close(drain=False)


@pytest.fixture
def collection(db: OpenDb) -> UUID:
    with db.begin() as session:
        return create_collection(session, "shop").id


def write(db: OpenDb, *documents: SourceDocument) -> list[UUID]:
    with db.begin() as session:
        shop = find_collection(session, "shop")
        return [written.id for written in write_documents(session, shop, documents)]


def index(ids: list[UUID], indexing: Indexing) -> int:
    return index_documents(ids, indexing, on_batch=lambda _: None, stopped=lambda: False)


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
