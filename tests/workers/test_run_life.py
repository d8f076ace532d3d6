"""A run's whole life against a real record: workers that come late, leases that end, retries."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, func, select, update

from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, HELD, Run, RunKind, RunStatus
from clara.errors import Cancelled, DamagedFile, IndexUnavailable, RunNotRetryable
from clara.settings import Settings
from tests.workers.test_reconcile import broker
from tests.workers.test_runs import LEASE_S, queued
from workers import runs
from workers.reconcile import reconcile
from workers.retrying import retry
from workers.runs import Held

__all__ = ["broker"]

ATTEMPTS = Settings.model_fields["run_attempts"].default
RUNS = 2
WHICH = st.integers(0, 99)


@dataclass
class Expected:
    """What a run's row must say."""

    status: RunStatus = RunStatus.QUEUED
    holder: UUID | None = None
    attempts: int = 0
    expired: bool = False

    def leave(self, status: RunStatus, *, attempts: int | None = None) -> None:
        self.status, self.holder, self.expired = status, None, False
        self.attempts = self.attempts if attempts is None else attempts


class Life(RuleBasedStateMachine):
    """Each rule does one thing to the record, and the same to what is expected of it."""

    def __init__(self, db: OpenDb) -> None:
        super().__init__()
        self.db = db
        with db.begin() as session:
            session.execute(delete(Run))
        self.runs = {queued(db, kind=RunKind.REGISTER): Expected() for _ in range(RUNS)}
        self.held: list[Held] = []
        """Every lease that was ever given, stale ones too."""

    def run_of(self, which: int) -> tuple[UUID, Expected]:
        return list(self.runs.items())[which % RUNS]

    @rule(which=WHICH)
    def take(self, which: int) -> None:
        run_id, expected = self.run_of(which)
        held = runs.take(self.db, run_id, lease_s=LEASE_S)
        assert bool(held) == (expected.status is RunStatus.QUEUED)
        if held:
            self.held.append(held)
            expected.status, expected.holder = RunStatus.LEASED, held.token
            expected.attempts += 1
            assert expected.attempts == held.run.attempts <= ATTEMPTS

    def owner(self, held: Held) -> Expected | None:
        """Of the run, where this lease is the one that counts."""
        expected = self.runs[held.run.id]
        return expected if expected.holder == held.token else None

    @precondition(lambda self: self.held)
    @rule(which=WHICH, done=st.integers(0, 9))
    def begin_or_go_on(self, which: int, done: int) -> None:
        held = self.held[-1 - which % len(self.held)]
        expected = self.owner(held)
        if expected:
            runs.begin(self.db, held)
            runs.progress(self.db, held, done, 9)
            expected.status = RunStatus.RUNNING
        else:
            with pytest.raises(Cancelled):
                runs.begin(self.db, held)
            with pytest.raises(Cancelled):
                runs.progress(self.db, held, done, 9)

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def renew(self, which: int) -> None:
        held = self.held[-1 - which % len(self.held)]
        expected = self.owner(held)
        assert runs._renew(self.db, held, LEASE_S) == bool(expected)
        assert runs._is_ours(self.db, held) == bool(expected)
        if expected:
            expected.expired = False

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def give_back(self, which: int) -> None:
        held = self.held[-1 - which % len(self.held)]
        expected = self.owner(held)
        assert runs.give_back(self.db, held) == bool(expected)
        if expected:
            expected.leave(RunStatus.QUEUED, attempts=0)

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def succeed(self, which: int) -> None:
        held = self.held[-1 - which % len(self.held)]
        self.end_or_refuse(held, RunStatus.SUCCEEDED, lambda db: runs.succeed(db, held, {}, {}))

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def await_children(self, which: int) -> None:
        held = self.held[-1 - which % len(self.held)]
        self.end_or_refuse(held, RunStatus.RUNNING, lambda db: runs.await_children(db, held))
        if self.runs[held.run.id].holder is None and self.waits(held.run.id):
            self.runs[held.run.id].attempts = 0

    def waits(self, run_id: UUID) -> bool:
        expected = self.runs[run_id]
        return expected.status is RunStatus.RUNNING and expected.holder is None

    def end_or_refuse(self, held: Held, status: RunStatus, write: Any) -> None:
        if expected := self.owner(held):
            with self.db.begin() as session:
                write(session)
            expected.leave(status)
        else:
            with pytest.raises(Cancelled), self.db.begin() as session:
                write(session)

    @precondition(lambda self: self.held)
    @rule(which=WHICH, passes=st.booleans())
    def fail(self, which: int, passes: bool) -> None:
        held = self.held[-1 - which % len(self.held)]
        expected = self.owner(held)
        error = IndexUnavailable("away") if passes else DamagedFile("no")
        final = runs.fail(self.db, held, error, attempts=ATTEMPTS)
        assert final == (not passes or held.run.attempts == ATTEMPTS)
        if expected:
            expected.leave(RunStatus.FAILED if final else RunStatus.QUEUED)

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def find_nothing_to_do(self, which: int) -> None:
        held = self.held[-1 - which % len(self.held)]
        expected = self.owner(held)
        assert runs.cancelled(self.db, held, Cancelled("gone")) == bool(expected)
        if expected:
            expected.leave(RunStatus.CANCELLED)

    @rule(which=WHICH)
    def lose_the_worker(self, which: int) -> None:
        run_id, expected = self.run_of(which)
        if expected.holder:
            ago = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, 1)
            with self.db.begin() as session:
                session.execute(update(Run).where(Run.id == run_id).values(lease_until=ago))
            expected.expired = True

    @rule(which=WHICH, times=st.integers(1, ATTEMPTS + 1))
    def kill_workers(self, which: int, times: int) -> None:
        for _ in range(times):
            self.take(which)
            self.lose_the_worker(which)
            self.reconcile()

    @rule()
    def reconcile(self) -> None:
        reconcile(self.db, Settings(_env_file=None))
        for run_id, expected in self.runs.items():
            if expected.expired:
                lost_often = expected.attempts >= ATTEMPTS
                expected.leave(RunStatus.FAILED if lost_often else RunStatus.QUEUED)
            elif self.waits(run_id):
                expected.leave(RunStatus.QUEUED)

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        run_id, expected = self.run_of(which)
        with self.db.begin() as session:
            found = runs.cancel(session, run_id)
        assert bool(found) == (expected.status in ACTIVE)
        if found:
            expected.leave(RunStatus.CANCELLED)

    @rule(which=WHICH)
    def retry(self, which: int) -> None:
        run_id, expected = self.run_of(which)
        if expected.status in (RunStatus.FAILED, RunStatus.CANCELLED):
            with self.db.begin() as session:
                retry(session, lambda *_: None, run_id)
            expected.leave(RunStatus.QUEUED, attempts=0)
        else:
            with pytest.raises(RunNotRetryable), self.db.begin() as session:
                retry(session, lambda *_: None, run_id)

    @invariant()
    def rows_are_as_expected(self) -> None:
        with self.db() as session:
            rows = {row.id: row for row in session.scalars(select(Run))}
        assert {run_id: (row.status, row.lease, row.attempts) for run_id, row in rows.items()} == {
            run_id: (one.status, one.holder, one.attempts) for run_id, one in self.runs.items()
        }
        for row in rows.values():
            assert row.attempts <= ATTEMPTS
            assert (row.lease is None) == (row.lease_until is None)
            assert row.lease is None or row.status in HELD
            assert (row.finished_at is None) == (row.status in ACTIVE)


def test_nothing_but_the_holder_of_its_lease_changes_a_run(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.reconcile._resend", lambda _: 0)  # messages change no state
    monkeypatch.setattr("workers.enqueue.send", lambda *_: True)
    # the steps are few enough to be read as they are, and each is slow enough not to be shrunk
    phases = (Phase.explicit, Phase.generate)
    rounds = settings(max_examples=15, stateful_step_count=20, deadline=None, phases=phases)
    run_state_machine_as_test(lambda: Life(db), settings=rounds)


@pytest.mark.parametrize("seed", range(3))
def test_many_workers_that_die_and_come_late_do_each_run_once(
    db: OpenDb, broker: redis.Redis, seed: int
) -> None:
    """Every worker tries every run, again and again, and one in three dies with it in hand."""
    ids = [queued(db, kind=RunKind.REGISTER) for _ in range(8)]
    effects: list[UUID] = []

    def work(number: int) -> None:
        chance = random.Random(f"{seed}:{number}")  # noqa: S311 - no secret
        for run_id in chance.sample(ids, len(ids)):
            held = runs.take(db, run_id, lease_s=LEASE_S)
            if held is None:
                continue
            try:
                runs.begin(db, held)
                if chance.random() < 0.3:
                    with db.begin() as session:  # it hangs; its lease ends
                        past = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, 1)
                        mine = update(Run).where(Run.id == run_id, Run.lease == held.token)
                        session.execute(mine.values(lease_until=past))
                    reconcile(db, Settings(_env_file=None))
                with db.begin() as session:  # and wakes up again
                    runs.succeed(session, held, {}, {})
                effects.append(run_id)
            except Cancelled:
                continue

    for number in range(50):
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6 * number, 6 * number + 6)))
        with db() as session:
            if not session.scalar(select(Run.id).where(Run.status.in_(ACTIVE)).limit(1)):
                break
    with db() as session:
        ended = {row.id: row.status for row in session.scalars(select(Run))}
    assert set(ended.values()) <= {RunStatus.SUCCEEDED, RunStatus.FAILED}
    done = [run_id for run_id, status in ended.items() if status is RunStatus.SUCCEEDED]
    assert sorted(effects) == sorted(done)
