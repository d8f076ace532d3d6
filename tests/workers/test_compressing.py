from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Collection, Run, RunKind, RunStatus
from clara.documents import create_collection
from clara.errors import UnknownCollection
from clara.pipeline.compress import Progress
from tests.factories import make_checkpoint
from tests.workers.test_runs import begun, queued, stored
from workers import compressing as module
from workers import enqueue
from workers.compressing import compress


@pytest.fixture
def collection(db: OpenDb) -> UUID:
    """With a generation of fingerprint `f`, and no passage."""
    with db.begin() as session:
        made = create_collection(session, "shop")
        generations.ensure(session, made.id, make_checkpoint(session, fingerprint="f"))
        return made.id


def loaded(db: OpenDb, *, on_processor: bool = False, fingerprint: str = "f") -> Any:
    """Enough for a collection without passages: nothing here computes."""

    def generation(collection: UUID) -> Any:
        with db() as session:
            if (found := generations.active(session, collection)) is None:
                raise UnknownCollection("it is gone")
            return found

    services = SimpleNamespace(open_db=db, fingerprint=fingerprint, on_processor=on_processor)
    return SimpleNamespace(generation=generation, compressing=lambda _: services)


@pytest.mark.parametrize(
    ("on_processor", "left"), [(True, RunStatus.QUEUED), (False, RunStatus.SUCCEEDED)]
)
def test_on_a_processor_compression_gives_way_to_indexing(
    db: OpenDb, collection: UUID, on_processor: bool, left: RunStatus
) -> None:
    ingest = queued(db, kind=RunKind.INGEST, collection_id=collection)
    run_id = queued(db, kind=RunKind.COMPRESS, collection_id=collection)
    again = compress(begun(db, run_id), loaded(db, on_processor=on_processor), db)
    assert not again
    assert stored(db, run_id).status is left
    with db.begin() as session:
        session.execute(update(Run).where(Run.id == ingest).values(status=RunStatus.SUCCEEDED))
    if on_processor:
        compress(begun(db, run_id), loaded(db, on_processor=True), db)
    assert stored(db, run_id).status is RunStatus.SUCCEEDED


def test_compression_of_a_deleted_collection_ends_well(db: OpenDb) -> None:
    run_id = queued(db, kind=RunKind.COMPRESS)
    assert not compress(begun(db, run_id), loaded(db, on_processor=True), db)
    assert stored(db, run_id).status is RunStatus.SUCCEEDED


def test_compression_of_a_collection_that_goes_meanwhile_ends_well(db: OpenDb) -> None:
    with db.begin() as session:
        nearly_gone = create_collection(session, "shop")
    run_id = queued(db, kind=RunKind.COMPRESS, collection_id=nearly_gone.id)
    assert not compress(begun(db, run_id), loaded(db), db)
    assert stored(db, run_id).status is RunStatus.SUCCEEDED


def test_compression_is_given_back_when_the_worker_is_told_to_stop(
    db: OpenDb, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[int] = []

    def pass_by_pages(*_: object, on_batch: Callable[[Progress], None], **__: object) -> Progress:
        for done in range(1, 4):
            pages.append(done)
            on_batch(Progress(done=done, total=9))
        return Progress(done=3, total=9)

    monkeypatch.setattr(module, "compress_collection", pass_by_pages)
    monkeypatch.setattr(module, "_finished", lambda *_: False)  # there is more to do
    monkeypatch.setattr(module, "stopping", lambda: len(pages) == 2)
    run_id = queued(db, kind=RunKind.COMPRESS, collection_id=collection)
    assert compress(begun(db, run_id), loaded(db), db)
    row = stored(db, run_id)
    assert (pages, row.done, row.total) == ([1, 2], 2, 9)
    assert (row.status, row.attempts, row.lease) == (RunStatus.QUEUED, 0, None)


@pytest.mark.parametrize("fingerprint", ["f", "g"])
def test_a_run_goes_on_for_the_generation_that_took_the_place_of_its_own(
    db: OpenDb, collection: UUID, monkeypatch: pytest.MonkeyPatch, fingerprint: str
) -> None:
    """One that shares the latents lacks none of them, so the run may end."""

    def switched(*_: object, **__: object) -> Progress:
        with db.begin() as session:
            row = make_checkpoint(session, fingerprint=fingerprint)
            begun = generations.build(session, collection, row, None)
            generations.switch(session, begun.id, keep=2)
        return Progress()

    monkeypatch.setattr(module, "compress_collection", switched)
    run_id = queued(db, kind=RunKind.COMPRESS, collection_id=collection)
    goes_on = compress(begun(db, run_id), loaded(db), db)
    row = stored(db, run_id)
    ended = (False, RunStatus.SUCCEEDED) if fingerprint == "f" else (True, RunStatus.QUEUED)
    assert (goes_on, row.status) == ended


def test_a_run_does_not_end_while_the_documents_are_unsettled(
    db: OpenDb, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where somebody goes back while its last page is made."""

    def unsettled(*_: object, **__: object) -> Progress:
        with db.begin() as session:
            session.execute(update(Collection).values(unsettled=True))
        return Progress()

    monkeypatch.setattr(module, "compress_collection", unsettled)
    run_id = queued(db, kind=RunKind.COMPRESS, collection_id=collection)
    assert compress(begun(db, run_id), loaded(db), db)
    monkeypatch.setattr(module, "compress_collection", lambda *_, **__: Progress())
    assert not compress(begun(db, run_id), loaded(db), db)
    assert stored(db, run_id).status is RunStatus.SUCCEEDED
    with db() as session:
        assert not session.get_one(Collection, collection).unsettled


def test_a_worker_of_another_precision_asks_for_a_generation_of_its_own(
    db: OpenDb, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[RunKind] = []
    monkeypatch.setattr(enqueue, "send", lambda kind, _: not sent.append(kind))
    for _ in range(2):
        run_id = queued(db, kind=RunKind.COMPRESS, collection_id=collection)
        assert not compress(begun(db, run_id), loaded(db, fingerprint="bfloat16"), db)
        assert stored(db, run_id).status is RunStatus.SUCCEEDED
    with db() as session:
        (asked,) = session.scalars(select(Run).where(Run.kind == RunKind.RECOMPRESS))
        (checkpoint,) = session.scalars(select(Checkpoint.id))
    assert asked.inputs["checkpoint_id"] == str(checkpoint)
    assert asked.inputs["reason"] == "precision"
    assert sent == [RunKind.RECOMPRESS]
