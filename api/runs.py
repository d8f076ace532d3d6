"""Rows of runs as the API shows them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from api import run_schemas as shapes
from api.errors import RunNotCancellable
from api.schemas import public
from clara.db.tables import ACTIVE, HELD, Collection, Run, RunKind, RunStatus
from clara.errors import UnknownRun


def with_names() -> Select[Any, Any]:
    """Runs beside the names of their collections."""
    return select(Run, Collection.name).outerjoin(Collection, Collection.id == Run.collection_id)


def found(db: Session, run_id: UUID) -> tuple[Run, str | None]:
    """A run and the name of its collection.

    Raises:
        UnknownRun: there is none of that id.
    """
    row = db.execute(with_names().where(Run.id == run_id)).one_or_none()
    if row is None:
        raise UnknownRun(
            f"no run has the id {run_id}", field="run_id", remedy="Look at GET /v1/runs."
        )
    return row[0], row[1]


def detail(db: Session, run_id: UUID) -> shapes.RunDetail:
    """A run with what it works on and waits for.

    Raises:
        UnknownRun: there is none of that id.
    """
    run, name = found(db, run_id)
    return shapes.RunDetail(
        **shown(run, name), inputs=run.inputs, details=run.details, children=_children(db, run)
    )


def shown(run: Run, collection: str | None) -> dict[str, Any]:
    """What a list shows of a run."""
    return {
        "id": run.id,
        "parent_id": run.parent_id,
        "kind": run.kind,
        "status": run.status,
        "collection": collection,
        "progress": _progress(run.done, run.total, run.rate, run.status, run.phase),
        "attempts": run.attempts,
        "result": run.result,
        "error": public(run.error),
        "timings": run.timings,
        "created_at": run.created_at,
        "queued_at": run.queued_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }


def not_cancellable(run: Run) -> RunNotCancellable:
    """Why a run cannot be cancelled, and what can be done instead."""
    active = run.status in ACTIVE
    reason, remedy = f"is {run.status}; only what waits or works can be cancelled", _NOTHING
    if active and run.kind is RunKind.PURGE:
        reason = "takes deleted passages out of the indexes, which cannot be cancelled"
        remedy = "Wait for its end with GET /v1/runs/{run_id}?wait=30."
    if active and run.kind is RunKind.RECOMPRESS_PART:
        reason, remedy = f"is a part of run {run.parent_id}", "Cancel that run."
    return RunNotCancellable(
        f"run {run.id} {reason}", field="run_id", limit=", ".join(ACTIVE), remedy=remedy
    )


_NOTHING = "Nothing is left to do."


def _children(db: Session, run: Run) -> shapes.Children | None:
    counted = db.execute(
        select(
            Run.status,
            func.count(),
            func.sum(Run.done),
            func.sum(Run.total),
            func.sum(Run.rate).filter(Run.status.in_(HELD)),
        )
        .where(Run.parent_id == run.id)
        .group_by(Run.status)
    ).all()
    if not counted:
        return None
    done, total = sum(row[2] for row in counted), sum(row[3] for row in counted)
    rates = [row[4] for row in counted if row[4]]
    rate = round(sum(rates), 3) if rates else None
    return shapes.Children(
        by_status={row[0]: row[1] for row in counted},
        progress=_progress(done, total, rate, run.status),
    )


def _progress(
    done: int, total: int, rate: float | None, status: RunStatus, phase: str = ""
) -> shapes.Progress:
    left = None
    if rate and total > done and status in HELD:
        left = round((total - done) / rate, 1)
    return shapes.Progress(done=done, total=total, phase=phase, rate=rate, seconds_left=left)
