"""Runs that wait for others: a parent goes on once its last child has ended."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, select, true, update
from sqlalchemy.orm import Session, aliased

from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Run, RunStatus
from workers.enqueue import transaction


def wake(open_db: OpenDb, parent: UUID) -> bool:
    """Queue a waiting parent if no child of it is active. Returns whether it was.

    Asked after every end of a child; of several that end at once, one finds the others ended.
    """
    return bool(_wake(open_db, Run.id == parent, waits=True))


def wake_all(open_db: OpenDb) -> int:
    """The same for every parent: a worker may die between the end of a child and `wake`."""
    return _wake(open_db, true(), waits=False)


def states(db: Session, parent: UUID) -> dict[RunStatus, int]:
    """How many children stand where."""
    counted = select(Run.status, func.count()).where(Run.parent_id == parent).group_by(Run.status)
    return {status: count for status, count in db.execute(counted)}  # noqa: C416 - rows are no pairs


def errors(db: Session, parent: UUID, *, limit: int = 3) -> list[dict[str, Any]]:
    """Errors of failed children, the first ones."""
    failed = (
        select(Run.error)
        .where(Run.parent_id == parent, Run.status == RunStatus.FAILED, Run.error.is_not(None))
        .order_by(Run.finished_at)
        .limit(limit)
    )
    return [error for error in db.scalars(failed) if error]


def _wake(open_db: OpenDb, which: Any, *, waits: bool) -> int:
    """Lock what waits, then look again at its children, then queue it.

    A parent that waits is running without a lease: no worker has it, and none may take it. Without
    the lock, one that went on and has new children meanwhile could be woken for the old ones: a
    statement sees children as they were when it began.

    Args:
        open_db: transactions on the record.
        which: condition on runs.
        waits: for locks of others; several parents at once must not.
    """
    waiting = which & (Run.status == RunStatus.RUNNING) & Run.lease.is_(None)
    locked = select(Run.id).where(waiting, ~_works()).with_for_update(skip_locked=not waits)
    now = func.clock_timestamp()
    with transaction(open_db) as (db, send):
        candidates = list(db.scalars(locked))
        if not candidates:
            return 0
        statement = (
            update(Run)
            .where(Run.id.in_(candidates), waiting, ~_works())
            .values(status=RunStatus.QUEUED, queued_at=now, sent_at=now)
            .returning(Run.kind, Run.id)
        )
        woken = db.execute(statement).all()
        for kind, run_id in woken:
            send(kind, run_id)
    return len(woken)


def _works() -> Any:
    """Whether a child of the run has not ended."""
    child = aliased(Run)
    return exists().where(child.parent_id == Run.id, child.status.in_(ACTIVE))
