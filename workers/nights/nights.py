"""Nights: one row and one run for a tick of the schedule, however many beats look at it.

A night brings the latents of every collection up to date by a recompression each, its children;
then it audits what they keep; then it writes down what was stale, what was done and what remains.
Ticks are rows, never messages that wait: what was due while nothing ran is found when something
does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Checkpoint, Collection, Night, Passage, Run, RunKind
from clara.errors import UnknownCollection
from clara.schedule import Schedule
from clara.settings import Settings
from workers import children, runs
from workers.enqueue import Send, queue_run, transaction
from workers.nights import report as night_report
from workers.nights.audit import audited
from workers.recompression.queueing import NIGHT, active_recompression, queue_recompress
from workers.runs import Held
from workers.stopping import stopping
from workers.turns import turn

if TYPE_CHECKING:
    from workers.loaded import Loaded

NIGHT_LOCK = 0x6E69676874
"""Advisory lock: two looks at the schedule take turns."""

SKIPPED = 31
"""Ticks that passed while nothing looked, named in a report."""

VISIT_S = 120.0
"""Seconds after which a night begins no other audit in the same message."""

WAIT_S = 10.0
"""Seconds until a night looks again whether it is its turn to compute."""

RECOMPRESSING, AUDITING = "recompressing", "auditing"


@dataclass(frozen=True)
class Nightly:
    """What a night needs."""

    open_db: OpenDb
    loaded: Loaded
    default: Callable[[Session], Checkpoint]
    """The checkpoint of collections that are not held at another one."""
    config: Settings


def look_at_schedule(
    open_db: OpenDb, config: Settings, *, now: datetime | None = None
) -> UUID | None:
    """Begin the night that is due, if one is. Returns its id.

    Only the newest tick counts: after days without a beat there is one night, which names the
    others. While a night is worked off no other one begins. The first look at a schedule only
    notes the tick before it: a schedule set at noon does not begin at noon because it would have
    been due at two.

    Args:
        open_db: transactions on the record.
        config: when nights are due.
        now: instead of the database's clock, which is one for all who look.
    """
    schedule = config.nights
    if schedule is None:
        return None
    with transaction(open_db) as (db, send):
        db.execute(select(func.pg_advisory_xact_lock(NIGHT_LOCK)))
        tick = schedule.last_due(now or db.scalars(select(func.clock_timestamp())).one())
        before = db.scalar(select(func.max(Night.tick)).where(Night.schedule == schedule.name))
        if tick is None or (before is not None and tick <= before):
            return None
        if before is None:
            _add(db, schedule, tick, {"noted": True}, finished_at=func.clock_timestamp())
            return None
        return None if _at_work(db) else _begin(db, send, schedule, tick, before)


def work_off(held: Held, nightly: Nightly) -> bool:
    """One visit to a night. Returns whether its run should be sent again to go on at once."""
    if not held.run.phase and _recompress(held, nightly):
        return False  # its last child wakes it
    return _audit(held, nightly)


def _begin(
    db: Session, send: Send, schedule: Schedule, tick: datetime, before: datetime
) -> UUID | None:
    passed = takewhile(lambda due: due < tick, schedule.due_after(before))
    skipped = [due.isoformat() for due in islice(passed, SKIPPED + 1)]
    report = {"skipped": skipped[:SKIPPED], "skipped_more": len(skipped) > SKIPPED}
    night = _add(db, schedule, tick, report)
    if night:
        inputs = {"night_id": str(night), "tick": tick.isoformat()}
        run = queue_run(db, send, RunKind.NIGHT, collection_id=None, inputs=inputs)
        db.execute(update(Night).where(Night.id == night).values(run_id=run.id))
    return night


def _add(
    db: Session, schedule: Schedule, tick: datetime, report: dict[str, Any], **more: Any
) -> UUID | None:
    """The row of a tick; None where there is one."""
    row = insert(Night).values(schedule=schedule.name, tick=tick, report=report, **more)
    added: UUID | None = db.scalar(row.on_conflict_do_nothing().returning(Night.id))
    return added


def _at_work(db: Session) -> bool:
    working = select(Run.id).where(Run.kind == RunKind.NIGHT, Run.status.in_(ACTIVE))
    return db.scalar(working.limit(1)) is not None


def _recompress(held: Held, nightly: Nightly) -> bool:
    """Queue a recompression per collection. Returns whether there is one to wait for."""
    began = held.run.started_at or datetime.now(UTC)
    ends = began + timedelta(hours=nightly.config.nightly_hours)
    with nightly.open_db() as db:
        default = nightly.default(db).id
        found = db.scalars(select(Collection).order_by(Collection.name)).all()
        mine = _queued_before(db, held.run.id)
    entries = {}
    for one in found:  # a transaction each: a collection that is locked holds up its questions
        try:
            entry = mine.get(one.id) or _queue(held, nightly, one.id, default, ends)
        except UnknownCollection:  # deleted meanwhile
            continue
        entries[str(one.id)] = {"collection": one.name} | entry
    details = {"ends": ends.isoformat(), "collections": entries}
    if not any("run_id" in entry for entry in entries.values()):
        _tell(held, nightly, details)
        return False
    with nightly.open_db.begin() as db:
        runs.await_children(db, held, phase=RECOMPRESSING, details=details, total=len(entries))
    children.wake(nightly.open_db, held.run.id)  # all of them may have ended meanwhile
    return True


def _queued_before(db: Session, night_run: UUID) -> dict[UUID, dict[str, Any]]:
    """What an attempt that was lost has queued, by collection."""
    queued = select(Run.collection_id, Run.id).where(
        Run.parent_id == night_run, Run.collection_id.is_not(None)
    )
    rows = db.execute(queued)
    return {collection: {"run_id": str(run_id)} for collection, run_id in rows if collection}


def _queue(
    held: Held, nightly: Nightly, collection: UUID, default: UUID, ends: datetime
) -> dict[str, Any]:
    """Queue the recompression of a collection. Returns which, or why there is none."""
    passage = select(Passage.id).where(Passage.collection_id == collection).limit(1)
    how: dict[str, Any] = {"reason": NIGHT, "gate": True, "deadline": ends}
    with transaction(nightly.open_db) as (db, send):
        if db.scalar(passage) is None:
            return {"outcome": night_report.EMPTY}
        wanted = _wanted(db, collection) or default
        run = queue_recompress(
            db, send, collection, checkpoint_id=wanted, parent_id=held.run.id, **how
        )
        if run is None:  # somebody asked for one: theirs is left alone
            other = active_recompression(db, collection)
            return {"outcome": night_report.BUSY, "busy_with": str(other.id) if other else None}
        runs.keep(db, held, phase="")  # nothing is queued for a night that was cancelled
        return {"run_id": str(run.id)}


def _wanted(db: Session, collection: UUID) -> UUID | None:
    """The checkpoint a collection is held at, if it is; nobody changes that until the commit."""
    generations.lock(db, collection)
    held = db.scalar(select(Collection.held).where(Collection.id == collection))
    active = generations.active(db, collection)
    return active.checkpoint_id if active and held else None


def _audit(held: Held, nightly: Nightly) -> bool:
    """Audit collection by collection, then end the night; pauses in between."""
    with nightly.open_db() as db:
        details = dict(db.scalars(select(Run.details).where(Run.id == held.run.id)).one())
        details["collections"] = night_report.collected(db, held.run.id, details["collections"])
    ends, visit = datetime.fromisoformat(details["ends"]), monotonic() + VISIT_S
    for collection, entry in details["collections"].items():
        if "audit" in entry:
            continue
        if stopping() or monotonic() > visit:
            runs.pause(nightly.open_db, held)
            return True
        with turn() as ours:
            if not ours:
                runs.pause(nightly.open_db, held, wait_s=WAIT_S)
                return False
            entry["audit"] = audited(UUID(collection), entry, held, nightly, ends)
        _tell(held, nightly, details)
    with nightly.open_db.begin() as db:
        _end(db, held, details)
    return False


def _tell(held: Held, nightly: Nightly, details: dict[str, Any]) -> None:
    entries = details["collections"]
    done = sum("audit" in entry for entry in entries.values())
    runs.progress(nightly.open_db, held, done, len(entries), phase=AUDITING, details=details)


def _end(db: Session, held: Held, details: dict[str, Any]) -> None:
    totals = night_report.totals(details["collections"])
    report = details | {"totals": totals}
    db.execute(
        update(Night)
        .where(Night.run_id == held.run.id)
        .values(report=Night.report.op("||")(report), finished_at=func.clock_timestamp())
    )
    runs.succeed(db, held, totals, runs.timings(held.run), done=totals["collections"])
