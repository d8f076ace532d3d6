"""Parents that wait for their children, on a real record."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy import text

from clara.db.connect import OpenDb
from clara.db.tables import Run, RunKind, RunStatus
from clara.errors import Cancelled, DamagedFile
from clara.settings import Settings
from tests.workers.test_runs import begun, queued, stored, taken
from workers import bootstrap, children, enqueue, runs, tasks
from workers.runs import Held

PART, WHOLE = RunKind.RECOMPRESS_PART, RunKind.RECOMPRESS


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Runs whose messages left, in order."""
    found: list[UUID] = []

    def send(_: RunKind, run_id: UUID) -> bool:
        found.append(run_id)
        return True

    monkeypatch.setattr(enqueue, "send", send)
    return found


def fan_out(db: OpenDb, held: Held, count: int, *, phase: str = "compressing") -> list[UUID]:
    """As a parent does: children and its own waiting in one transaction."""
    with db.begin() as session:
        made = [
            enqueue.queue_run(session, lambda *_: None, PART, collection_id=None, inputs={})
            for _ in range(count)
        ]
        for run in made:
            run.parent_id = held.run.id
        runs.await_children(session, held, phase=phase)
    return [run.id for run in made]


def parent(db: OpenDb, count: int) -> tuple[UUID, list[UUID]]:
    whole = begun(db, queued(db, kind=WHOLE))
    return whole.run.id, fan_out(db, whole, count)


def end(db: OpenDb, held: Held) -> None:
    with db.begin() as session:
        runs.succeed(session, held, {}, {})


def test_a_parent_waits_without_a_lease_and_nobody_can_take_it(db: OpenDb) -> None:
    whole, _ = parent(db, 2)
    row = stored(db, whole)
    assert (row.status, row.lease, row.attempts, row.phase) == (
        RunStatus.RUNNING,
        None,
        0,
        "compressing",
    )
    assert runs.take(db, whole, lease_s=30) is None


def test_children_and_the_waiting_of_their_parent_are_written_together_or_not_at_all(
    db: OpenDb,
) -> None:
    whole = begun(db, queued(db, kind=WHOLE))
    with db.begin() as session:
        runs.cancel(session, whole.run.id)
    with pytest.raises(Cancelled):
        fan_out(db, whole, 3)
    with db() as session:
        assert children.states(session, whole.run.id) == {}


def test_the_last_child_wakes_the_parent_once(db: OpenDb, sent: list[UUID]) -> None:
    whole, parts = parent(db, 2)
    end(db, begun(db, parts[0]))
    assert not children.wake(db, whole)
    assert stored(db, whole).status is RunStatus.RUNNING
    end(db, begun(db, parts[1]))
    assert children.wake(db, whole)
    assert not children.wake(db, whole)
    assert sent == [whole]
    assert begun(db, whole).run.attempts == 1


@pytest.mark.parametrize("round_", range(5))
def test_of_children_that_end_at_once_one_wakes_the_parent(
    db: OpenDb, sent: list[UUID], round_: int
) -> None:
    whole, parts = parent(db, 4)
    held = [begun(db, part) for part in parts]
    together = Barrier(len(held))

    def finish(one: Held) -> bool:
        together.wait()
        end(db, one)
        return children.wake(db, whole)

    with ThreadPoolExecutor(len(held)) as pool:
        woken = list(pool.map(finish, held))
    assert woken.count(True) == 1
    assert sent == [whole]


def test_a_worker_that_dies_between_the_end_and_the_waking_is_made_up_for(
    db: OpenDb, sent: list[UUID]
) -> None:
    whole, parts = parent(db, 1)
    other, _ = parent(db, 1)
    end(db, begun(db, parts[0]))
    assert children.wake_all(db) == 1
    assert children.wake_all(db) == 0
    assert sent == [whole]
    assert stored(db, other).status is RunStatus.RUNNING


def test_several_that_wake_all_at_once_wake_each_parent_once(db: OpenDb, sent: list[UUID]) -> None:
    wholes = {parent(db, 0)[0] for _ in range(6)}
    with ThreadPoolExecutor(4) as pool:
        woken = sum(pool.map(lambda _: children.wake_all(db), range(4)))
    assert woken == 6
    assert set(sent) == wholes
    assert len(sent) == 6


def test_a_parent_that_fans_out_again_is_not_woken_for_the_children_before(
    db: OpenDb, sent: list[UUID]
) -> None:
    whole, parts = parent(db, 1)
    end(db, begun(db, parts[0]))
    assert children.wake(db, whole)
    again = fan_out(db, begun(db, whole), 2, phase="another round")
    assert not children.wake(db, whole)
    assert children.wake_all(db) == 0
    for part in again:
        end(db, begun(db, part))
    assert children.wake(db, whole)
    with db() as session:
        assert children.states(session, whole) == {RunStatus.SUCCEEDED: 3}


def test_a_late_waking_waits_for_who_changes_the_parent_and_looks_again(
    db: OpenDb, sent: list[UUID]
) -> None:
    """Its statement began before the parent had its new children: those it would not see."""
    whole, parts = parent(db, 1)
    end(db, begun(db, parts[0]))
    with ThreadPoolExecutor(1) as pool:
        with db.begin() as session:  # woken, taken and waiting again, in one
            run = session.get_one(Run, whole, with_for_update=True)
            run.phase = "another round"
            session.add(Run(kind=PART, parent_id=whole))
            session.flush()
            late = pool.submit(children.wake, db, whole)
            until_somebody_waits_for_a_lock(db)
        assert late.result() is False
    assert stored(db, whole).status is RunStatus.RUNNING


def until_somebody_waits_for_a_lock(db: OpenDb) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    for _ in range(1000):
        with db() as session:
            if session.scalar(waiting):
                return
        Event().wait(0.01)
    raise AssertionError("nobody waits")


def test_a_cancelled_parent_is_not_woken(db: OpenDb, sent: list[UUID]) -> None:
    whole, parts = parent(db, 2)
    held = begun(db, parts[0])
    with db.begin() as session:
        assert runs.cancel(session, whole)
    assert [stored(db, part).status for part in parts] == [RunStatus.CANCELLED] * 2
    with pytest.raises(Cancelled):
        end(db, held)
    assert not children.wake(db, whole)
    assert children.wake_all(db) == 0
    assert sent == []


def test_a_run_that_somebody_holds_is_no_waiting_parent(db: OpenDb, sent: list[UUID]) -> None:
    taken(db, queued(db, kind=WHOLE))
    begun(db, queued(db, kind=WHOLE))
    assert children.wake_all(db) == 0


def test_errors_of_failed_children_come_first_failed_first(db: OpenDb) -> None:
    whole, parts = parent(db, 3)
    for number in (2, 0):
        error = DamagedFile(f"part {number}")
        assert runs.fail(db, begun(db, parts[number]), error, attempts=3)
    with db() as session:
        found = children.errors(session, whole)
        assert [error["message"] for error in found] == ["part 2", "part 0"]
        assert children.errors(session, whole, limit=1) == found[:1]


@pytest.mark.parametrize("ends", ["well", "badly", "deleted"])
def test_a_task_of_a_child_wakes_the_parent_however_it_ends(
    db: OpenDb, sent: list[UUID], monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    whole, (part,) = parent(db, 1)

    def work(held: Held, _: object) -> None:
        if ends == "badly":
            raise DamagedFile("no")
        if ends == "deleted":
            raise Cancelled("its collection is gone")
        end(db, held)

    monkeypatch.setattr(bootstrap, "database", lambda: db)
    monkeypatch.setattr(tasks, "settings", Settings)
    tasks._work(str(part), SimpleNamespace, work)
    assert stored(db, whole).status is RunStatus.QUEUED
    assert sent == [whole]
