"""The status of documents after a switch: looked at afterwards, in batches, safe to break off."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, DocumentStatus
from clara.errors import Cancelled
from clara.pipeline import settle
from clara.pipeline.compress import mark_indexed
from clara.pipeline.settle import settle_documents
from tests.factories import (
    make_checkpoint,
    make_collection,
    make_document,
    make_latent,
    make_passage,
)

OLD, NEW = "a" * 64, "b" * 64
INDEXED, SEARCHABLE = DocumentStatus.INDEXED, DocumentStatus.SEARCHABLE


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "BATCH", 2)


@pytest.fixture
def shop(db: OpenDb) -> UUID:
    """Seven documents with latents of OLD, which answers; the first three have some of NEW too."""
    with db.begin() as session:
        shop = make_collection(session)
        generations.ensure(session, shop.id, make_checkpoint(session, fingerprint=OLD))
        for number in range(7):
            passage = make_passage(session, make_document(session, shop, text=f"No. {number}."))
            make_latent(session, passage, OLD)
            if number < 3:
                make_latent(session, passage, NEW)
        return shop.id


def switch_to(db: OpenDb, shop: UUID, fingerprint: str) -> None:
    with db.begin() as session:
        checkpoint = make_checkpoint(session, fingerprint=fingerprint)
        made = generations.build(session, shop, checkpoint, None)
        generations.switch(session, made.id, keep=5)


def statuses(db: OpenDb) -> dict[DocumentStatus, int]:
    with db() as session:
        counted = select(Document.status, func.count()).group_by(Document.status)
        return {row[0]: row[1] for row in session.execute(counted)}


def unsettled(db: OpenDb, shop: UUID) -> bool:
    with db() as session:
        return session.get_one(Collection, shop).unsettled


def never() -> bool:
    return False


def test_a_switch_leaves_the_documents_and_says_that_they_are_unsettled(
    db: OpenDb, shop: UUID
) -> None:
    switch_to(db, shop, NEW)
    assert statuses(db) == {INDEXED: 7}
    assert unsettled(db, shop)
    assert settle_documents(db, shop, stopped=never) == 4
    assert statuses(db) == {INDEXED: 3, SEARCHABLE: 4}
    assert not unsettled(db, shop)
    assert settle_documents(db, shop, stopped=never) == 0


def test_going_back_and_settling_gives_them_their_status_back(db: OpenDb, shop: UUID) -> None:
    switch_to(db, shop, NEW)
    settle_documents(db, shop, stopped=never)
    with db.begin() as session:
        generations.roll_back(session, shop, keep=5)
    assert unsettled(db, shop)
    assert settle_documents(db, shop, stopped=never) == 4
    assert statuses(db) == {INDEXED: 7}


def test_a_switch_to_the_same_latents_leaves_nothing_to_settle(db: OpenDb, shop: UUID) -> None:
    with db.begin() as session:
        twin = make_checkpoint(session, fingerprint=OLD)
        assert generations.follow(session, shop, twin, keep=5)
    assert not unsettled(db, shop)


def test_documents_that_are_not_split_or_failed_are_left_as_they_are(
    db: OpenDb, shop: UUID
) -> None:
    with db.begin() as session:
        here = session.get_one(Collection, shop)
        make_document(session, here, status=DocumentStatus.PENDING)
        make_document(session, here, status=DocumentStatus.FAILED)
    switch_to(db, shop, NEW)
    settle_documents(db, shop, stopped=never)
    assert statuses(db)[DocumentStatus.PENDING] == statuses(db)[DocumentStatus.FAILED] == 1


@pytest.mark.parametrize("batches", range(1, 3))
def test_broken_off_after_any_batch_it_is_done_by_the_next_one(
    db: OpenDb, shop: UUID, batches: int
) -> None:
    switch_to(db, shop, NEW)
    asked = count()
    with pytest.raises(Cancelled):
        settle_documents(db, shop, stopped=lambda: next(asked) == batches)
    assert unsettled(db, shop)
    settle_documents(db, shop, stopped=never)
    assert statuses(db) == {INDEXED: 3, SEARCHABLE: 4}


@pytest.mark.parametrize("batches", range(1, 3))
def test_a_switch_in_the_middle_of_it_makes_it_begin_anew(
    db: OpenDb, shop: UUID, batches: int
) -> None:
    switch_to(db, shop, NEW)
    asked = count()

    def going_back() -> bool:
        if next(asked) == batches:
            with db.begin() as session:
                generations.roll_back(session, shop, keep=5)
        return False

    settle_documents(db, shop, stopped=going_back)
    assert statuses(db) == {INDEXED: 7}
    assert not unsettled(db, shop)


def test_there_and_back_while_it_looks_leaves_no_document_with_a_wrong_status(
    db: OpenDb, shop: UUID
) -> None:
    """The same latents answer as when it began, and others have changed statuses meanwhile."""
    asked = count()

    def there_and_back() -> bool:
        if next(asked) == 1:
            switch_to(db, shop, NEW)
            settle_documents(db, shop, stopped=never)
            with db.begin() as session:
                generations.roll_back(session, shop, keep=5)
        return False

    with db.begin() as session:
        session.execute(update(Document).values(status=SEARCHABLE))
    settle_documents(db, shop, stopped=there_and_back)
    assert statuses(db) == {INDEXED: 7}
    assert not unsettled(db, shop)


def test_a_document_that_somebody_writes_is_not_waited_for(db: OpenDb, shop: UUID) -> None:
    switch_to(db, shop, NEW)
    with db.begin() as writing:
        last = select(Document.id).order_by(Document.created_at.desc()).limit(1)
        writing.scalars(last.with_for_update()).one()
        assert settle_documents(db, shop, stopped=never) == 3


def test_a_deleted_collection_has_nothing_to_settle(db: OpenDb, shop: UUID) -> None:
    with db.begin() as session:
        session.delete(session.get_one(Collection, shop))
    assert settle_documents(db, shop, stopped=never) == 0


def test_latents_of_the_generation_before_mark_no_document(db: OpenDb, shop: UUID) -> None:
    """A page that was compressed while the switch went on."""
    switch_to(db, shop, NEW)
    settle_documents(db, shop, stopped=never)
    with db.begin() as session:
        documents = list(session.scalars(select(Document.id)))
        mark_indexed(session, shop, documents, OLD)
    assert statuses(db) == {INDEXED: 3, SEARCHABLE: 4}
    with db.begin() as session:
        session.execute(update(Document).values(status=SEARCHABLE))
        mark_indexed(session, shop, documents, NEW)
    assert statuses(db) == {INDEXED: 3, SEARCHABLE: 4}


def test_a_switch_waits_for_who_is_marking_documents(db: OpenDb, shop: UUID) -> None:
    """Or the mark would be committed after the documents were settled."""
    marked, switched = Event(), Event()

    def switch() -> None:
        marked.wait()
        switch_to(db, shop, NEW)
        switched.set()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(switch)
        with db.begin() as session:
            mark_indexed(session, shop, list(session.scalars(select(Document.id))), OLD)
            marked.set()
            while not _somebody_waits(db):
                assert not done.done()
            assert not switched.is_set()
        done.result()
    assert switched.is_set()


def _somebody_waits(db: OpenDb) -> bool:
    with db() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_of_two_that_settle_at_once_neither_waits_for_ever(db: OpenDb, shop: UUID) -> None:
    switch_to(db, shop, NEW)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(settle_documents, db, shop, stopped=never) for _ in range(2)]
        assert sum(one.result() for one in both) == 4
    assert statuses(db) == {INDEXED: 3, SEARCHABLE: 4}
