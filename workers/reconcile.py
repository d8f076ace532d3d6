"""Brings messages and leases back in line with the runs table; harmless in several copies."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import HELD, Run, RunStatus
from clara.settings import Settings
from workers import children, runs
from workers.app import QUEUES, TASK_QUEUES, app
from workers.enqueue import BOUNDED, TASKS, transaction
from workers.purging import give_up_builds

log = logging.getLogger(__name__)

RESEND_AFTER_S = 15.0
"""Seconds a message may be on its way before it can count as lost."""


def reconcile(open_db: OpenDb, config: Settings) -> dict[str, int]:
    """One round. Returns what it did: runs given up, taken back, woken and sent again, and lexical
    indexes whose building was given up."""
    with open_db.begin() as db:
        given_up = _give_up(db, config.run_attempts)
        taken_back = _take_back(db)
    done = {
        "given_up": given_up,
        "taken_back": taken_back,
        "parents": children.wake_all(open_db),
        "builds": give_up_builds(open_db),
        "sent": _resend(open_db),
    }
    if any(done.values()):
        log.warning("reconciled: %s", done)
    return done


def _expired() -> Any:
    return Run.status.in_(HELD) & (Run.lease_until < func.clock_timestamp())


def _give_up(db: Session, attempts: int) -> int:
    """Fail runs whose worker died as often as allowed."""
    error = {
        "code": "worker-lost",
        "message": f"the worker was lost {attempts} times while it held this run",
        "remedy": "Look at the worker's log of that time: memory is the usual reason.",
        "retryable": False,
    }
    ended = db.scalars(
        update(Run)
        .where(_expired(), Run.attempts >= attempts)
        .values(
            status=RunStatus.FAILED,
            error=error,
            lease=None,
            lease_until=None,
            finished_at=func.clock_timestamp(),
        )
        .returning(Run)
    ).all()
    for run in ended:
        runs.fail_documents(db, run, error)
    return len(ended)


def _take_back(db: Session) -> int:
    """Queue runs again whose worker shows no sign of life; `_resend` sends them."""
    taken = db.scalars(
        update(Run)
        .where(_expired())
        .values(
            status=RunStatus.QUEUED,
            lease=None,
            lease_until=None,
            queued_at=func.clock_timestamp(),
            sent_at=func.clock_timestamp() - timedelta(seconds=RESEND_AFTER_S),
        )
        .returning(Run.id)
    )
    return len(taken.all())


def _resend(open_db: OpenDb) -> int:
    """Send queued runs again, as many as messages are missing from their queue.

    Every queued run needs one message. Where the broker holds fewer than there are rows, the
    difference was lost, or is just being delivered: those sent longest ago go again. A copy too
    many is harmless, since only one worker can take the run; counting keeps a long queue from
    being sent anew at every round.
    """
    return sum(_resend_queue(open_db, queue) for queue in QUEUES)


def _resend_queue(open_db: OpenDb, queue: str) -> int:
    kinds = [kind for kind, task in TASKS.items() if TASK_QUEUES[task] == queue]
    due = Run.kind.in_(kinds) & (Run.status == RunStatus.QUEUED)
    due &= Run.queued_at <= func.clock_timestamp()
    late = Run.sent_at <= func.clock_timestamp() - timedelta(seconds=RESEND_AFTER_S)
    with transaction(open_db) as (db, send):
        rows = db.scalar(select(func.count()).select_from(Run).where(due)) or 0
        missing = rows - _messages(queue) if rows else 0
        if missing <= 0:
            return 0
        chosen = (
            select(Run.id)
            .where(due, late)
            .order_by(Run.sent_at)
            .limit(missing)
            .with_for_update(skip_locked=True)
        )
        again = db.execute(
            update(Run)
            .where(Run.id.in_(chosen.scalar_subquery()))
            .values(sent_at=func.clock_timestamp())
            .returning(Run.kind, Run.id)
        ).all()
        for kind, run_id in again:
            send(kind, run_id)
    return len(again)


def _messages(queue: str) -> int:
    with app.connection_for_read(transport_options=BOUNDED) as connection:
        return int(connection.default_channel.client.llen(queue))
