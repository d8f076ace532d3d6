"""What the chaos run would say of a loss, or of something that is there twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Thread
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, update

from clara.db.connect import OpenDb
from clara.db.tables import (
    Answer,
    Document,
    DocumentStatus,
    Generation,
    GenerationStatus,
    Latent,
    Passage,
    Run,
    RunKind,
    RunStatus,
)
from scripts.chaos.checks import check
from scripts.chaos.load import COLLECTION, Told
from scripts.chaos.proxy import Proxy
from tests.factories import (
    make_answer,
    make_checkpoint,
    make_collection,
    make_document,
    make_latent,
    make_passage,
    make_question,
    make_run,
)

TEXT = "Copper conducts. Glass does not."


@dataclass
class Held:
    """An index that holds what it is told to."""

    ids: set[UUID] = field(default_factory=set)
    more: int = 0

    def held(self, _: UUID) -> set[UUID]:
        return self.ids

    def count(self, _: UUID) -> int:
        return len(self.ids) + self.more


@dataclass
class Good:
    """A record in which nothing is wrong, and what was told of it."""

    told: Told
    index: Held
    document: UUID
    question: UUID


@pytest.fixture
def good(db: OpenDb) -> Good:
    with db.begin() as session:
        collection = make_collection(session, COLLECTION)
        checkpoint = make_checkpoint(session)
        generation = Generation(
            collection_id=collection.id,
            number=1,
            checkpoint_id=checkpoint.id,
            fingerprint=checkpoint.fingerprint,
            status=GenerationStatus.ACTIVE,
        )
        session.add(generation)
        document = make_document(session, collection, TEXT, external_id="document-1")
        passages = [make_passage(session, document, 0, 16), make_passage(session, document, 17)]
        for passage in passages:
            make_latent(session, passage)
        run = make_run(session, RunKind.QUERY, RunStatus.SUCCEEDED, collection)
        question = make_question(session, collection, run)
        make_answer(session, question, checkpoint, generation_id=generation.id)
        told = Told({"document-1": TEXT}, questions=[question.id])
        return Good(told, Held({one.id for one in passages}), document.id, question.id)


def found(db: OpenDb, good: Good) -> tuple[int, int]:
    verdict = check(db, {"lexical": good.index}, good.told)  # type: ignore[dict-item]
    return len(verdict.lost), len(verdict.doubled)


def test_a_sound_record_has_lost_nothing_and_holds_nothing_twice(db: OpenDb, good: Good) -> None:
    assert found(db, good) == (0, 0)


def test_a_document_that_is_gone_old_or_unfinished_is_lost(db: OpenDb, good: Good) -> None:
    good.told.texts["document-2"] = "Never came."
    assert found(db, good) == (1, 0)
    good.told.texts = {"document-1": "A later text."}
    assert found(db, good) == (1, 0)
    good.told.texts = {"document-1": TEXT}
    change(db, Document, status=DocumentStatus.PENDING)
    assert found(db, good) == (1, 0)


def test_a_document_that_was_deleted_or_never_written_is_one_too_many(
    db: OpenDb, good: Good
) -> None:
    good.told.texts["document-1"] = None
    assert found(db, good) == (0, 1)
    good.told.texts.clear()
    assert found(db, good) == (0, 1)


def test_text_in_no_passage_is_lost_and_in_two_is_double(db: OpenDb, good: Good) -> None:
    with db.begin() as session:
        session.execute(update(Passage).where(Passage.start == 17).values(start=20, text=TEXT[20:]))
    assert found(db, good) == (1, 0)
    change(db, Passage, Passage.start == 20, start=10, text=TEXT[10:])
    assert found(db, good) == (0, 1)


def test_a_passage_without_its_latent_is_lost(db: OpenDb, good: Good) -> None:
    change(db, Latent, fingerprint="0" * 64)
    assert found(db, good) == (2, 0)


def test_an_index_must_hold_exactly_the_passages(db: OpenDb, good: Good) -> None:
    gone = good.index.ids.pop()
    assert found(db, good) == (1, 0)
    good.index.ids |= {gone, uuid4()}
    assert found(db, good) == (0, 1)
    good.index.ids = {one for one in good.index.ids if one != gone} | {gone}
    good.index.more = 3
    assert found(db, good) == (0, 2)


def test_a_question_ends_in_an_answer_or_in_a_named_error(db: OpenDb, good: Good) -> None:
    good.told.questions.append(uuid4())
    assert found(db, good) == (1, 0)
    good.told.questions.pop()
    change(db, Run, status=RunStatus.FAILED, error={"code": "index-unavailable"})
    assert found(db, good) == (0, 1)  # failed, and yet there is an answer
    with db.begin() as session:
        session.execute(delete(Answer))
    assert found(db, good) == (0, 0)
    change(db, Run, error=None)
    assert found(db, good) == (1, 0)
    change(db, Run, status=RunStatus.SUCCEEDED)
    assert found(db, good) == (1, 0)


def test_a_lease_that_is_left_is_told(db: OpenDb, good: Good) -> None:
    change(db, Run, lease=uuid4())
    assert found(db, good) == (0, 1)


def test_a_cut_proxy_closes_what_is_open_and_passes_on_when_mended(echo: str) -> None:
    with Proxy(echo).running() as proxy:
        assert said(proxy.url) == b"hello"
        proxy.cut()
        assert said(proxy.url) == b""
        proxy.mend()
        assert said(proxy.url) == b"hello"


@pytest.fixture
def echo() -> Iterator[str]:
    """Address of a server that says everything back."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(connection.recv(100))

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def said(url: str) -> bytes:
    """What comes back for `hello`; nothing where the connection is closed."""
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        try:
            connection.sendall(b"hello")
            return connection.recv(100)
        except OSError:
            return b""


def change(db: OpenDb, table: type, *where: object, **values: object) -> None:
    with db.begin() as session:
        session.execute(update(table).where(*where).values(**values))  # type: ignore[arg-type]
