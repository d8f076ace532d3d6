from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, event, func, select, update

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, DocumentStatus, Run, RunKind, RunStatus
from clara.documents import create_collection, write_documents
from clara.errors import Cancelled, DamagedFile, IndexUnavailable
from clara.types import SourceDocument
from workers import runs, stopping
from workers.enqueue import queue_compress, transaction

LEASE_S = 30.0


def queued(db: OpenDb, **values: object) -> UUID:
    with db.begin() as session:
        run = Run(**({"kind": RunKind.QUERY} | values))
        session.add(run)
        session.flush()
        return run.id


def stored(db: OpenDb, run_id: UUID) -> Run:
    with db() as session:
        found = session.get(Run, run_id)
    assert found
    return found


def taken(db: OpenDb, run_id: UUID) -> runs.Held:
    held = runs.take(db, run_id, lease_s=LEASE_S)
    assert held
    return held


def begun(db: OpenDb, run_id: UUID) -> runs.Held:
    held = taken(db, run_id)
    runs.begin(db, held)
    return held


def test_taking_a_run_counts_an_attempt_and_sets_a_lease(db: OpenDb) -> None:
    held = taken(db, queued(db))
    row = stored(db, held.run.id)
    assert (row.status, row.attempts, row.lease) == (RunStatus.LEASED, 1, held.token)
    assert row.started_at
    assert row.lease_until
    assert row.lease_until > row.started_at


def test_of_many_copies_of_a_message_one_gets_the_run(db: OpenDb) -> None:
    run_id = queued(db)
    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(lambda _: runs.take(db, run_id, lease_s=LEASE_S), range(8)))
    assert sum(one is not None for one in held) == 1


def test_a_run_that_is_not_there_is_not_taken(db: OpenDb) -> None:
    assert runs.take(db, uuid4(), lease_s=LEASE_S) is None


def test_a_run_is_running_once_its_worker_is_ready(db: OpenDb) -> None:
    held = begun(db, queued(db))
    row = stored(db, held.run.id)
    assert (row.status, row.attempts, row.lease) == (RunStatus.RUNNING, 1, held.token)
    late = taken(db, queued(db))
    with db.begin() as session:
        runs.cancel(session, late.run.id)
    with pytest.raises(Cancelled):
        runs.begin(db, late)


def test_only_what_may_be_lost_with_the_server_does_not_wait_for_its_disk(db: OpenDb) -> None:
    """A lease may: the run is queued as before. An answer that was told must be there."""
    run_id, waits = queued(db), []

    def look(connection: Connection) -> None:
        waits.append(connection.exec_driver_sql("SHOW synchronous_commit").scalar())

    event.listen(db.kw["bind"], "commit", look)
    held = begun(db, run_id)
    with db.begin() as session:
        runs.succeed(session, held, {}, {})
    assert waits == ["off", "off", "on"]


def test_success_is_written_with_its_effects_or_not_at_all(db: OpenDb) -> None:
    held = begun(db, queued(db))
    with db() as session:
        runs.succeed(session, held, {}, {})
        session.rollback()
    assert stored(db, held.run.id).status is RunStatus.RUNNING
    with db.begin() as session:
        runs.succeed(session, held, {"n": 1}, {"queue": 2.0}, done=3)
    row = stored(db, held.run.id)
    assert (row.status, row.result, row.done, row.total) == (RunStatus.SUCCEEDED, {"n": 1}, 3, 3)
    assert row.lease is None
    assert row.finished_at


def test_a_worker_that_lost_its_lease_cannot_write(db: OpenDb) -> None:
    late = taken(db, queued(db))
    with db.begin() as session:
        session.execute(update(Run).values(status=RunStatus.QUEUED, lease=None))
    begun(db, late.run.id)
    with pytest.raises(Cancelled), db.begin() as session:
        runs.succeed(session, late, {}, {})
    with pytest.raises(Cancelled), db.begin() as session:
        runs.await_children(session, late)
    with pytest.raises(Cancelled):
        runs.begin(db, late)
    assert not runs.give_back(db, late)
    with pytest.raises(Cancelled):
        runs.progress(db, late, 1, 2)
    runs.fail(db, late, DamagedFile("too late"), attempts=3)
    row = stored(db, late.run.id)
    assert (row.status, row.attempts, row.error) == (RunStatus.RUNNING, 2, None)


def test_holding_renews_the_lease_and_notices_a_cancelled_run(db: OpenDb) -> None:
    held = taken(db, queued(db))
    before = stored(db, held.run.id).lease_until
    with runs.holding(db, held, lease_s=0.3):
        assert not held.lost.wait(0.25)
        assert stored(db, held.run.id).lease_until != before
        with db.begin() as session:
            session.execute(update(Run).values(status=RunStatus.CANCELLED))
        assert held.lost.wait(5)
    assert held.stopped()


def test_an_error_that_may_pass_is_tried_again_after_a_while(db: OpenDb) -> None:
    held = taken(db, queued(db))
    assert not runs.fail(db, held, IndexUnavailable("gone for a moment"), attempts=3)
    row = stored(db, held.run.id)
    assert row.status is RunStatus.QUEUED
    assert row.error
    assert row.error["code"] == "index-unavailable"
    with db() as session:
        wait = session.scalar(select(Run.queued_at - func.clock_timestamp()))
    assert timedelta(seconds=3) < wait < timedelta(seconds=6)


def test_an_error_that_cannot_pass_ends_the_run_with_its_traceback(db: OpenDb) -> None:
    held = taken(db, queued(db))
    with pytest.raises(DamagedFile) as caught:
        raise DamagedFile("page 3 is not a page", field="a.pdf", remedy="Save it again.")
    assert runs.fail(db, held, caught.value, attempts=3)
    row = stored(db, held.run.id)
    assert row.status is RunStatus.FAILED
    assert row.error
    assert row.error["remedy"] == "Save it again."
    assert "test_runs.py" in row.error["traceback"]


def test_the_last_attempt_ends_the_run_and_fails_its_waiting_documents(db: OpenDb) -> None:
    with db.begin() as session:
        collection = create_collection(session, "shop")
        (written,) = write_documents(session, collection, [SourceDocument("text")])
    run_id = queued(
        db,
        kind=RunKind.INGEST,
        attempts=2,
        collection_id=collection.id,
        inputs={"documents": [str(written.id)]},
    )
    assert runs.fail(db, taken(db, run_id), IndexUnavailable("still gone"), attempts=3)
    with db() as session:
        document = session.get(Document, written.id)
    assert document
    assert document.status is DocumentStatus.FAILED
    assert document.error
    assert document.error["code"] == "index-unavailable"
    assert "traceback" not in document.error


def test_a_pause_is_no_failed_attempt(db: OpenDb) -> None:
    held = taken(db, queued(db, attempts=1))
    runs.pause(db, held, 5, 9)
    row = stored(db, held.run.id)
    assert (row.status, row.attempts, row.done, row.total) == (RunStatus.QUEUED, 0, 5, 9)


def test_a_collection_has_at_most_one_active_compress_run(db: OpenDb) -> None:
    with db.begin() as session:
        collection: Collection = create_collection(session, "shop")

    def ask(_: int) -> UUID | None:
        with transaction(db) as (session, _send):
            return queue_compress(session, lambda *_: None, collection.id)

    with ThreadPoolExecutor(6) as pool:
        made = [run_id for run_id in pool.map(ask, range(12)) if run_id]
    assert len(made) == 1


def test_an_ingest_that_commits_late_is_seen_by_the_compress_run_or_queues_another(
    db: OpenDb,
) -> None:
    """The run must not end between an ingest's look at it and that ingest's commit."""
    with db.begin() as session:
        collection = create_collection(session, "shop")
        first = queue_compress(session, lambda *_: None, collection.id)
    assert first
    held = begun(db, first)
    lacking = select(Document.id).where(Document.collection_id == collection.id)
    with ThreadPoolExecutor(1) as pool:
        with db.begin() as ingest:
            assert queue_compress(ingest, lambda *_: None, collection.id) is None
            finishing = pool.submit(_finish, db, held, lacking)
            write_documents(ingest, collection, [SourceDocument("late")])
            ingest.flush()
        assert finishing.result() is False
    assert stored(db, first).status is RunStatus.RUNNING


def _finish(db: OpenDb, held: runs.Held, lacking: object) -> bool:
    with db.begin() as session:
        return runs.finish_unless(session, held, lacking, {})


def test_a_document_that_another_run_still_lists_is_not_failed(db: OpenDb) -> None:
    with db.begin() as session:
        collection = create_collection(session, "shop")
        (written,) = write_documents(session, collection, [SourceDocument("text")])
    values = {"kind": RunKind.INGEST, "inputs": {"documents": [str(written.id)]}}
    first = taken(db, queued(db, **values))
    queued(db, **values)
    assert runs.fail(db, first, DamagedFile("no"), attempts=3)
    with db() as session:
        document = session.get(Document, written.id)
    assert document
    assert document.status is DocumentStatus.PENDING


def test_a_compress_run_that_waits_is_woken_by_the_next_ingest(db: OpenDb) -> None:
    with db.begin() as session:
        collection = create_collection(session, "shop")
        run_id = queue_compress(session, lambda *_: None, collection.id)
    assert run_id
    sent: list[UUID] = []

    def ask() -> None:
        with db.begin() as session:
            queue_compress(session, lambda _, woken: sent.append(woken), collection.id)

    ask()
    assert sent == []  # its first message is still on its way
    runs.pause(db, taken(db, run_id), 0, 9, wait_s=60)
    ask()
    assert sent == [run_id]
    assert taken(db, run_id)


def test_a_run_with_nothing_left_to_do_ends_as_cancelled(db: OpenDb) -> None:
    held = taken(db, queued(db))
    assert runs.cancelled(db, held, Cancelled("its question was deleted"))
    row = stored(db, held.run.id)
    assert (row.status, row.lease) == (RunStatus.CANCELLED, None)
    assert row.error
    assert row.error["message"] == "its question was deleted"


def test_a_lost_run_is_not_cancelled_by_who_lost_it(db: OpenDb) -> None:
    late = taken(db, queued(db))
    with db.begin() as session:
        session.execute(update(Run).values(status=RunStatus.QUEUED, lease=None))
    taken(db, late.run.id)
    assert not runs.cancelled(db, late, Cancelled("gone"))
    assert stored(db, late.run.id).status is RunStatus.LEASED


def test_a_run_tells_how_fast_it_goes_from_the_second_look_on(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(runs, "monotonic", lambda: now)
    held = begun(db, queued(db))
    rates = []
    for seconds, done in [(0, 10), (10, 30), (30, 70), (50, 110), (10, 5), (10, 55)]:
        now += seconds
        runs.progress(db, held, done, 200)
        rates.append(stored(db, held.run.id).rate)
    # of the last minute; where it begins anew, the last one known stays
    assert rates == [None, 2.0, 1.5, 0.8, 0.8, 5.0]


def test_cancelling_a_run_cancels_its_children_and_theirs(db: OpenDb) -> None:
    night = queued(db, kind=RunKind.NIGHT, status=RunStatus.RUNNING)
    whole = queued(db, kind=RunKind.RECOMPRESS, status=RunStatus.RUNNING, parent_id=night)
    parts = [
        queued(db, kind=RunKind.RECOMPRESS_PART, status=status, parent_id=whole)
        for status in (RunStatus.SUCCEEDED, RunStatus.QUEUED, RunStatus.QUEUED)
    ]
    held = begun(db, parts[1])
    other = queued(db, kind=RunKind.RECOMPRESS)
    with db.begin() as session:
        assert runs.cancel(session, night)
    assert [stored(db, run_id).status for run_id in (night, whole, *parts, other)] == [
        RunStatus.CANCELLED,
        RunStatus.CANCELLED,
        RunStatus.SUCCEEDED,
        RunStatus.CANCELLED,
        RunStatus.CANCELLED,
        RunStatus.QUEUED,
    ]
    with pytest.raises(Cancelled):
        runs.progress(db, held, 1, 2)


def test_a_part_is_not_cancelled_by_itself(db: OpenDb) -> None:
    whole = queued(db, kind=RunKind.RECOMPRESS, status=RunStatus.RUNNING)
    part = queued(db, kind=RunKind.RECOMPRESS_PART, parent_id=whole)
    with db.begin() as session:
        assert runs.cancel(session, part) is None
    assert stored(db, part).status is RunStatus.QUEUED


def test_what_is_given_back_is_no_failed_attempt_and_due_at_once(db: OpenDb) -> None:
    held = begun(db, queued(db, attempts=1))
    assert runs.give_back(db, held)
    row = stored(db, held.run.id)
    assert (row.status, row.attempts, row.lease) == (RunStatus.QUEUED, 0, None)
    assert taken(db, held.run.id)


def test_work_is_told_to_stop_some_time_after_its_process_was(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question in hand is finished if that takes seconds, and given back if it does not."""
    held = begun(db, queued(db))
    monkeypatch.setattr(stopping, "FINISH_S", 0.05)
    stopping._STOPPING.set()
    try:
        waited = Event().wait
        while not held.stopped():
            waited(0.01)
    finally:
        stopping._STOPPING.clear()
    assert not held.stopped()
    assert not held.lost.is_set()
