"""A run's life: queued -> leased -> running -> succeeded | failed | cancelled.

Every change is one compare-and-set in SQL that names the state it expects, so a second copy of a
message, or a worker that lost its lease, changes nothing.
"""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Text, cast, exists, func, select, update
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, HELD, Document, DocumentStatus, Run, RunKind, RunStatus
from clara.errors import Cancelled, ClaraError
from workers.stopping import overdue

log = logging.getLogger(__name__)

BACKOFF_S = (5.0, 30.0, 120.0)
"""Seconds until a failed attempt is tried again, by number of attempts so far."""

POLL_S = 1.0
"""Seconds between two looks at the row of a held run: how soon a cancelled one is noticed."""

_KEEPERS = ThreadPoolExecutor(max_workers=1000, thread_name_prefix="lease")
"""A thread for each run that is held, kept for the next one: who starts a thread waits until the
system has run it, which takes milliseconds where the processor is busy. As many as are needed: a
lease must not wait for its turn."""

RATE_S = 60.0
"""Seconds that the rate of a run is averaged over."""

UNCANCELLABLE = (RunKind.PURGE, RunKind.RECOMPRESS_PART)
"""What was deleted must leave the indexes; a part is cancelled with the run it belongs to."""

_SOON_ON_DISK = func.set_config("synchronous_commit", "off", True)
"""Returned by a statement, lets its transaction not wait for the disk. If the server is lost within
the second, so is the lease, and the run is as it was: queued, for whoever takes it next."""

_CANCELLED: dict[str, Any] = {
    "status": RunStatus.CANCELLED,
    "lease": None,
    "lease_until": None,
    "finished_at": func.clock_timestamp(),
}


@dataclass
class Held:
    """A run this worker holds the lease of."""

    run: Run
    """As it was when taken; read only."""
    token: UUID
    lost: Event = field(default_factory=Event)
    """Set when the lease or the run itself is gone: stop, and write nothing."""
    pace: deque[tuple[float, int]] = field(default_factory=deque)
    """Moments of the last minute, and how far it was then."""

    def stopped(self) -> bool:
        """Whether the work should stop: polled between batches and tokens.

        Because it is another's or was cancelled, or because this process should have ended by now.
        """
        return self.lost.is_set() or overdue()


def take(open_db: OpenDb, run_id: UUID, *, lease_s: float) -> Held | None:
    """Take a queued run, or None: another worker has it, it is done, or it is not there."""
    token = uuid4()
    statement = (
        update(Run)
        .where(Run.id == run_id, Run.status == RunStatus.QUEUED)
        .values(
            status=RunStatus.LEASED,
            lease=token,
            lease_until=_from_now(lease_s),
            attempts=Run.attempts + 1,
            started_at=func.coalesce(Run.started_at, func.clock_timestamp()),
        )
        .returning(Run, _SOON_ON_DISK)
    )
    with open_db.begin() as db:
        run = db.scalar(statement)
    return Held(run, token) if run else None


def begin(open_db: OpenDb, held: Held) -> None:
    """Say that what the work needs is there, and that it goes on now.

    Raises:
        Cancelled: the lease is lost or the run was cancelled.
    """
    with open_db.begin() as db:
        _write(db, held, {"status": RunStatus.RUNNING}, _SOON_ON_DISK)


@contextmanager
def holding(open_db: OpenDb, held: Held, *, lease_s: float) -> Iterator[None]:
    """Keep the lease alive while the body runs; sets `held.lost` once it is not ours any more."""
    done = Event()

    def keep() -> None:
        due = monotonic() + lease_s / 3
        while not done.wait(min(POLL_S, lease_s / 3)):
            renews = monotonic() >= due
            if not (_renew(open_db, held, lease_s) if renews else _is_ours(open_db, held)):
                held.lost.set()
                return
            due = monotonic() + lease_s / 3 if renews else due

    kept = _KEEPERS.submit(keep)
    try:
        yield
    finally:
        done.set()
        kept.result()


def progress(open_db: OpenDb, held: Held, done: int, total: int, **more: Any) -> None:
    """Write how far it is, and how fast it goes: from the second call on.

    Args:
        more: `phase` and `details`, where a kind has them.
    Raises:
        Cancelled: the lease is lost or the run was cancelled.
    """
    values = {"done": done, "total": total, **more}
    if rate := _rate(held, done):
        values["rate"] = rate
    with open_db.begin() as db:
        _write(db, held, values)


def keep(db: Session, held: Held, **columns: Any) -> None:
    """Write columns of a held run in the transaction of its effects: both are kept or neither.

    Raises:
        Cancelled: the lease is lost; the transaction must not be committed.
    """
    _write(db, held, columns)


def cancel(db: Session, run_id: UUID) -> Run | None:
    """Cancel a run that has not ended, and its children; None where it has ended, is none, or takes
    no cancelling.

    Whoever works on one loses its lease with it, sees that within POLL_S, and stops.
    """
    error = Cancelled(
        "the run that was to index it was cancelled", remedy="Write the document again."
    )
    statement = (
        update(Run)
        .where(Run.id == run_id, Run.status.in_(ACTIVE), Run.kind.not_in(UNCANCELLABLE))
        .values(_CANCELLED)
        .returning(Run)
    )
    run = db.scalar(statement)
    if run:
        fail_documents(db, run, error.as_dict())
        _cancel_children(db, [run.id])
    return run


def _cancel_children(db: Session, parents: list[UUID]) -> None:
    """Children of children too: a night has recompressions, and those have parts."""
    while parents:
        children = Run.parent_id.in_(parents) & Run.status.in_(ACTIVE)
        parents = list(db.scalars(update(Run).where(children).values(_CANCELLED).returning(Run.id)))


def succeed(
    db: Session, held: Held, result: dict[str, Any], timings: dict[str, Any], *, done: int = 0
) -> None:
    """End it well, in the transaction that holds its effects: both are kept or neither.

    Args:
        done: the final progress, where `progress` was not told already.
    Raises:
        Cancelled: the lease is lost; the transaction must not be committed.
    """
    values: dict[str, Any] = {
        "status": RunStatus.SUCCEEDED,
        "result": result,
        "timings": timings,
        "error": None,
        "lease": None,
        "lease_until": None,
        "finished_at": func.clock_timestamp(),
    }
    if done:
        values |= {"done": done, "total": done}
    _write(db, held, values)


def timings(run: Run, **phases: float) -> dict[str, float]:
    """Milliseconds by phase, the wait in the queue first."""
    waited = (run.started_at - run.queued_at).total_seconds() if run.started_at else 0.0
    return {"queue": round(max(waited, 0.0) * 1000, 1), **phases}


def pause(
    open_db: OpenDb,
    held: Held,
    done: int | None = None,
    total: int | None = None,
    *,
    wait_s: float = 0.0,
) -> None:
    """Give it back unfinished, on purpose: it goes on later, and this was no failed attempt.

    Args:
        done: progress, where it was not told already; with `total`.
        wait_s: seconds until the reconciler sends it again by itself.
    """
    told = {"done": done, "total": total} if done is not None else {}
    values: dict[str, Any] = {
        **told,
        "status": RunStatus.QUEUED,
        "lease": None,
        "lease_until": None,
        "attempts": 0,
        "queued_at": _from_now(wait_s),
        "sent_at": func.clock_timestamp(),
    }
    with open_db.begin() as db:
        _write(db, held, values)


def give_back(open_db: OpenDb, held: Held) -> bool:
    """Queue it for another worker, since this one ends. Returns False where the lease was lost."""
    try:
        pause(open_db, held)
    except Cancelled:
        return False
    return True


def await_children(db: Session, held: Held, **more: Any) -> None:
    """Give the lease back and stay running, until the last child has ended (`workers.children`).

    Args:
        db: the transaction that writes the children.
        more: columns to write with it, such as `phase`.
    Raises:
        Cancelled: the lease is lost; the transaction must not be committed.
    """
    alone = {"status": RunStatus.RUNNING, "lease": None, "lease_until": None, "attempts": 0}
    _write(db, held, alone | more)


def finish_unless(db: Session, held: Held, left: Any, result: dict[str, Any]) -> bool:
    """End a compress run, unless `left` (a select) finds passages it has not seen.

    Locks the run first. An ingest that writes passages locks it too (`queue_compress`), so either
    its passages are visible here, or it finds the run ended and queues another.
    """
    db.execute(select(Run.id).where(Run.id == held.run.id).with_for_update())
    if db.scalar(select(left.exists())):
        return False
    succeed(db, held, result, timings(held.run))
    return True


def fail(open_db: OpenDb, held: Held, error: Exception, *, attempts: int) -> bool:
    """Record a failed attempt; queue it again where that may help. Returns whether it ended."""
    known = error.as_dict() if isinstance(error, ClaraError) else _unknown(error)
    known["traceback"] = "".join(traceback.format_exception(error))[-8000:]
    final = not known["retryable"] or held.run.attempts >= attempts
    with open_db.begin() as db:
        try:
            if final:
                give_up(db, held, known)
            else:
                wait = BACKOFF_S[min(held.run.attempts, len(BACKOFF_S)) - 1]
                _write(db, held, _queued_again(known, wait))
        except Cancelled:
            log.warning("run %s was taken over or cancelled meanwhile", held.run.id)
    return final


def cancelled(open_db: OpenDb, held: Held, reason: Cancelled) -> bool:
    """End a run there is nothing left to do for, such as one whose question was deleted.

    Returns False, and changes nothing, where the lease was lost: another worker decides then.
    """
    try:
        with open_db.begin() as db:
            _write(db, held, _CANCELLED | {"error": reason.as_dict()})
    except Cancelled:
        return False
    return True


def give_up(db: Session, held: Held, error: dict[str, Any]) -> None:
    """Fail a run for good, and say so on the documents that wait for it."""
    values = {
        "status": RunStatus.FAILED,
        "error": error,
        "lease": None,
        "lease_until": None,
        "finished_at": func.clock_timestamp(),
    }
    _write(db, held, values)
    fail_documents(db, held.run, error)


def fail_documents(db: Session, run: Run, error: dict[str, Any]) -> None:
    """Documents whose ingest failed for good are failed too; writing them again retries."""
    if run.kind is not RunKind.INGEST:
        return
    waits_for_another = exists().where(
        Run.kind == RunKind.INGEST,
        Run.status.in_(ACTIVE),
        Run.id != run.id,
        Run.inputs["documents"].has_key(cast(Document.id, Text)),
    )
    shown = {key: value for key, value in error.items() if key != "traceback"}
    db.execute(
        update(Document)
        .where(
            Document.id.in_([UUID(value) for value in run.inputs["documents"]]),
            Document.status == DocumentStatus.PENDING,
            ~waits_for_another,
        )
        .values(status=DocumentStatus.FAILED, error=shown)
    )


def _renew(open_db: OpenDb, held: Held, lease_s: float) -> bool:
    try:
        with open_db.begin() as db:
            _write(db, held, {"lease_until": _from_now(lease_s)})
    except Cancelled:
        return False
    except Exception:  # the database may be back at the next beat, before the lease ends
        log.exception("could not renew the lease of run %s", held.run.id)
    return True


def _is_ours(open_db: OpenDb, held: Held) -> bool:
    try:
        with open_db() as db:
            return bool(db.scalar(select(exists(select(Run.id).where(_mine(held))))))
    except Exception:  # the next renewal tells
        log.warning("could not look at run %s", held.run.id, exc_info=True)
    return True


def _mine(held: Held) -> Any:
    return (Run.id == held.run.id) & (Run.lease == held.token) & Run.status.in_(HELD)


def _write(db: Session, held: Held, values: dict[str, Any], *more: Any) -> None:
    mine = update(Run).where(_mine(held)).values(values).returning(Run.id, *more)
    if db.scalar(mine) is None:
        raise Cancelled(f"run {held.run.id} was cancelled or taken over by another worker")


def _rate(held: Held, done: int) -> float | None:
    """Units a second since a minute ago, or since the first look; None at that one."""
    now = monotonic()
    if held.pace and done < held.pace[-1][1]:  # it begins anew
        held.pace.clear()
    held.pace.append((now, done))
    while now - held.pace[0][0] > RATE_S and len(held.pace) > 2:
        held.pace.popleft()
    since, before = held.pace[0]
    if now <= since:
        return None
    return round((done - before) / (now - since), 3)


def _queued_again(error: dict[str, Any], wait_s: float) -> dict[str, Any]:
    return {
        "status": RunStatus.QUEUED,
        "error": error,
        "lease": None,
        "lease_until": None,
        "queued_at": _from_now(wait_s),
        "sent_at": func.clock_timestamp(),
    }


def _unknown(error: Exception) -> dict[str, Any]:
    """An error nobody foresaw may be a passing one, such as a lost connection: tried again."""
    return {"code": "unexpected", "message": f"{type(error).__name__}: {error}", "retryable": True}


def _from_now(seconds: float) -> Any:
    return func.clock_timestamp() + timedelta(seconds=seconds)
