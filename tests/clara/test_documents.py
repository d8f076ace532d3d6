from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from clara.db.connect import OpenDb
from clara.db.tables import Document, DocumentStatus
from clara.documents import (
    Outcome,
    Written,
    create_collection,
    delete_documents,
    find_collection,
    write_documents,
)
from clara.errors import DuplicateCollection, InvalidInput, UnknownCollection
from clara.types import SourceDocument


@pytest.fixture
def shop(db: OpenDb) -> str:
    with db.begin() as session:
        return create_collection(session, "shop").name


def write(db: OpenDb, *documents: SourceDocument) -> list[Written]:
    with db.begin() as session:
        return write_documents(session, find_collection(session, "shop"), documents)


def outcomes(written: list[Written]) -> list[Outcome]:
    return [one.outcome for one in written]


def test_a_new_document_is_pending(db: OpenDb, shop: str) -> None:
    (written,) = write(db, SourceDocument("A coat.", title="Coat", external_id="c1"))
    assert written.outcome is Outcome.CREATED
    with db() as session:
        row = session.get(Document, written.id)
    assert row
    assert (row.title, row.text, row.status) == ("Coat", "A coat.", DocumentStatus.PENDING)


def test_the_same_content_again_changes_nothing(db: OpenDb, shop: str) -> None:
    documents = [SourceDocument("a", external_id="1"), SourceDocument("b")]
    first = write(db, *documents)
    again = write(db, *documents)
    assert outcomes(again) == [Outcome.UNCHANGED, Outcome.UNCHANGED]
    assert [one.id for one in again] == [one.id for one in first]


def test_other_content_under_the_same_external_id_replaces(db: OpenDb, shop: str) -> None:
    (first,) = write(db, SourceDocument("old", external_id="1"))
    with db.begin() as session:
        session.execute(update(Document).values(status=DocumentStatus.INDEXED))
    (second,) = write(db, SourceDocument("new", external_id="1"))
    assert (second.id, second.outcome) == (first.id, Outcome.UPDATED)
    with db() as session:
        row = session.get(Document, first.id)
    assert row
    assert (row.text, row.status) == ("new", DocumentStatus.PENDING)


@pytest.mark.parametrize(
    "changed",
    [
        SourceDocument("text", title="other", external_id="1"),
        SourceDocument("text", external_id="1", metadata={"year": 2024}),
    ],
)
def test_title_and_metadata_are_content_too(db: OpenDb, shop: str, changed: SourceDocument) -> None:
    write(db, SourceDocument("text", external_id="1"))
    assert outcomes(write(db, changed)) == [Outcome.UPDATED]


def test_writing_a_failed_document_again_retries_it(db: OpenDb, shop: str) -> None:
    write(db, SourceDocument("text", external_id="1"))
    with db.begin() as session:
        session.execute(update(Document).values(status=DocumentStatus.FAILED, error={"code": "x"}))
    (again,) = write(db, SourceDocument("text", external_id="1"))
    assert again.outcome is Outcome.UPDATED
    with db() as session:
        row = session.get(Document, again.id)
    assert row
    assert (row.status, row.error) == (DocumentStatus.PENDING, None)


def test_two_documents_of_one_request_may_not_share_an_external_id(db: OpenDb, shop: str) -> None:
    twins = [SourceDocument("a", external_id="1"), SourceDocument("b", external_id="1")]
    with pytest.raises(InvalidInput, match="documents 0 and 1") as caught:
        write(db, *twins)
    assert caught.value.field == "/documents/1/external_id"


def test_the_same_text_twice_without_an_id_is_one_document(db: OpenDb, shop: str) -> None:
    first, second = write(db, SourceDocument("a"), SourceDocument("a"))
    assert first.id == second.id
    assert outcomes([first, second]) == [Outcome.CREATED, Outcome.UNCHANGED]


def test_many_writers_of_one_document_end_in_one_row(db: OpenDb, shop: str) -> None:
    def one(number: int) -> Written:
        return write(db, SourceDocument(f"text {number}", external_id="1"))[0]

    with ThreadPoolExecutor(8) as pool:
        ids = {written.id for written in pool.map(one, range(16))}
    assert len(ids) == 1


def test_a_name_is_taken_once(db: OpenDb, shop: str) -> None:
    with pytest.raises(DuplicateCollection, match="'shop'"), db.begin() as session:
        create_collection(session, "shop")


def test_an_unknown_collection_is_named(db: OpenDb) -> None:
    with pytest.raises(UnknownCollection, match="'nowhere'"), db() as session:
        find_collection(session, "nowhere")


def test_deleting_documents_leaves_no_row(db: OpenDb, shop: str) -> None:
    (written,) = write(db, SourceDocument("a"))
    with db.begin() as session:
        assert delete_documents(session, [written.id]) == []
        assert session.get(Document, written.id) is None
