"""Documents into the indexes and out of them, as a worker does it, on real stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from clara.db.connect import OpenDb
from clara.db.tables import Passage, Run, RunKind, RunStatus
from clara.documents import create_collection, delete_documents, find_collection, write_documents
from clara.passages import FastTokenizer
from clara.pipeline.index import Indexing
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.tantivy import TantivyIndex
from clara.serving.encoding import EncoderOnEngine
from clara.serving.engine import Engine
from clara.types import SourceDocument
from tests.tiny import tiny_base, tiny_encoder
from tests.workers.test_runs import queued, stored, taken
from workers import enqueue, runs
from workers.ingesting import ingest, purge
from workers.purging import add_purges


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncoderOnEngine]:
    engine = Engine()
    folder = tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")
    yield EncoderOnEngine(SentenceEncoder(folder), engine)
    engine.close(drain=False)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FastTokenizer:
    return FastTokenizer.from_folder(tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture
def indexing(
    db: OpenDb,
    encoder: EncoderOnEngine,
    tokenizer: FastTokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Indexing:
    monkeypatch.setattr(enqueue, "send", lambda *_: True)
    dense = FaissIndex(db, encoder=encoder.encoder.name, dimension=encoder.encoder.dimension)
    return Indexing(db, TantivyIndex(tmp_path / "tantivy"), dense, encoder, tokenizer, 32)


@pytest.fixture
def collection(db: OpenDb) -> UUID:
    with db.begin() as session:
        return create_collection(session, "shop").id


def write(db: OpenDb, collection: UUID, text: str) -> tuple[UUID, runs.Held]:
    """A document and the run that is to index it."""
    with db.begin() as session:
        shop = find_collection(session, "shop")
        (one,) = write_documents(session, shop, [SourceDocument(text, external_id="1")])
    inputs = {"documents": [str(one.id)]}
    run_id = queued(db, kind=RunKind.INGEST, collection_id=collection, inputs=inputs)
    return one.id, taken(db, run_id)


def everywhere(db: OpenDb, collection: UUID, indexing: Indexing) -> list[set[UUID]]:
    with db() as session:
        record = set(session.scalars(select(Passage.id)))
    return [record, indexing.lexical.held(collection), indexing.dense.held(collection)]


def purges(db: OpenDb) -> list[Run]:
    with db() as session:
        return list(session.scalars(select(Run).where(Run.kind == RunKind.PURGE)))


def test_replacing_leaves_no_purge_behind(db: OpenDb, collection: UUID, indexing: Indexing) -> None:
    for text in ("Tea came.", "Coffee came."):
        ingest(write(db, collection, text)[1], indexing)
    record, *indexes = everywhere(db, collection, indexing)
    assert len(record) == 1
    assert indexes == [record, record]
    assert purges(db) == []


def test_a_worker_that_dies_after_the_commit_leaves_a_purge_that_does_the_rest(
    db: OpenDb, collection: UUID, indexing: Indexing, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(write(db, collection, "Tea came.")[1], indexing)
    (old,) = everywhere(db, collection, indexing)[0]

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(FaissIndex, "delete", die)
        with pytest.raises(KeyboardInterrupt):
            ingest(write(db, collection, "Coffee came.")[1], indexing)
    record, *indexes = everywhere(db, collection, indexing)
    assert indexes == [record | {old}, record | {old}]
    (left,) = purges(db)
    assert left.inputs == {"collection_id": str(collection), "passages": [str(old)]}
    with db() as session:
        assert left.queued_at > session.scalar(select(func.clock_timestamp()))  # not at once
    purge(taken(db, left.id), indexing)
    assert everywhere(db, collection, indexing) == [record, record, record]
    assert stored(db, left.id).status is RunStatus.SUCCEEDED


def test_a_deletion_takes_out_what_no_row_knows(
    db: OpenDb, collection: UUID, indexing: Indexing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker died between the indexes and the record."""
    document, held = write(db, collection, "Tea came.")
    dies(held, indexing, monkeypatch)
    with db.begin() as session:
        gone = delete_documents(session, [document])
        (made,) = add_purges(session, collection, gone, documents=[document])
    assert (gone, len(indexing.lexical.held(collection))) == ([], 1)
    purge(taken(db, made.id), indexing)
    assert everywhere(db, collection, indexing) == [set(), set(), set()]


def test_a_second_attempt_forgets_documents_that_were_deleted_after_the_first(
    db: OpenDb, collection: UUID, indexing: Indexing, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, held = write(db, collection, "Tea came.")
    dies(held, indexing, monkeypatch)
    with db.begin() as session:
        delete_documents(session, [document])
        session.get_one(Run, held.run.id).status = RunStatus.QUEUED
    ingest(taken(db, held.run.id), indexing)
    assert everywhere(db, collection, indexing) == [set(), set(), set()]


def dies(held: runs.Held, indexing: Indexing, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("clara.pipeline.index._write_rows", die)
        with pytest.raises(KeyboardInterrupt):
            ingest(held, indexing)


def test_a_purge_of_a_deleted_collection_refers_to_none(db: OpenDb, collection: UUID) -> None:
    with db.begin() as session:
        session.delete(find_collection(session, "shop"))
        session.flush()
        (made,) = add_purges(session, collection, [UUID(int=1)])
    assert stored(db, made.id).collection_id is None
