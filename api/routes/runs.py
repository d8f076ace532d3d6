"""Runs: what is being worked on, how far it is, and stopping it."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import schemas
from api.deps import Db, collection_named
from api.errors import RunNotCancellable
from api.paging import Page, is_after, next_page
from api.waiting import Wait, until_ended
from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Collection, Run, RunKind, RunStatus
from clara.errors import UnknownRun
from workers import runs

router = APIRouter(prefix="/v1/runs", tags=["runs"])


class RunPage(Page):
    """Which runs to list."""

    kind: RunKind | None = Field(default=None, description="Only those.")
    status: RunStatus | None = Field(default=None, description="Only those.")
    collection: str | None = Field(default=None, description="Only those of one collection.")


@router.get("", summary="List runs", responses=schemas.problems(404, 422))
def list_runs(open_db: Db, page: Annotated[RunPage, Query()]) -> schemas.Runs:
    """A page of runs, newest first."""
    statement = (
        select(Run, Collection.name)
        .outerjoin(Collection, Collection.id == Run.collection_id)
        .order_by(Run.created_at.desc(), Run.id.desc())
        .limit(page.limit + 1)
    )
    if page.kind:
        statement = statement.where(Run.kind == page.kind)
    if page.status:
        statement = statement.where(Run.status == page.status)
    if page.after:
        statement = statement.where(is_after(page.after, Run, newest_first=True))
    with open_db() as db:
        if page.collection is not None:
            collection = collection_named(db, page.collection)
            statement = statement.where(Run.collection_id == collection.id)
        rows = db.execute(statement).all()
    names = {run.id: name for run, name in rows}
    listed = [run for run, _ in rows]
    following = next_page(listed, page.limit)
    return schemas.Runs(
        runs=[schemas.Run(**_shown(run, names[run.id])) for run in listed], next=following
    )


@router.get("/{run_id}", summary="Read a run", responses=schemas.problems(404, 422))
async def read(request: Request, open_db: Db, run_id: UUID, wait: Wait = 0.0) -> schemas.RunDetail:
    """A run: where it stands, how far it is, and its result or error."""
    if wait:
        await until_ended(request, open_db, run_id, wait)
    return await run_in_threadpool(_read, open_db, run_id)


@router.post("/{run_id}/cancel", summary="Cancel a run", responses=schemas.problems(404, 409, 422))
def cancel(open_db: Db, run_id: UUID) -> schemas.RunDetail:
    """Cancel a queued or running run; work on it stops within two seconds, a training between
    two steps. Documents that waited for it are failed, and may be written again.
    """
    with open_db.begin() as db:
        if runs.cancel(db, run_id) is None:
            raise _not_cancellable(_found(db, run_id)[0])
    return _read(open_db, run_id)


def _not_cancellable(run: Run) -> RunNotCancellable:
    purge = run.kind is RunKind.PURGE
    return RunNotCancellable(
        f"run {run.id} "
        + (
            "takes deleted passages out of the indexes, which cannot be cancelled"
            if purge
            else f"is {run.status}; only what waits or works can be cancelled"
        ),
        field="run_id",
        limit=", ".join(status.value for status in ACTIVE),
        remedy="Wait for its end with GET /v1/runs/{run_id}?wait=30."
        if purge
        else "Nothing is left to do.",
    )


def _read(open_db: OpenDb, run_id: UUID) -> schemas.RunDetail:
    with open_db() as db:
        run, name = _found(db, run_id)
    return schemas.RunDetail(**_shown(run, name), inputs=run.inputs)


def _found(db: Session, run_id: UUID) -> tuple[Run, str | None]:
    statement = (
        select(Run, Collection.name)
        .outerjoin(Collection, Collection.id == Run.collection_id)
        .where(Run.id == run_id)
    )
    row = db.execute(statement).one_or_none()
    if row is None:
        raise UnknownRun(
            f"no run has the id {run_id}", field="run_id", remedy="Look at GET /v1/runs."
        )
    return row[0], row[1]


def _shown(run: Run, collection: str | None) -> dict[str, Any]:
    return {
        "id": run.id,
        "kind": run.kind,
        "status": run.status,
        "collection": collection,
        "progress": schemas.Progress(done=run.done, total=run.total, phase=run.phase),
        "attempts": run.attempts,
        "result": run.result,
        "error": schemas.public(run.error),
        "timings": run.timings,
        "created_at": run.created_at,
        "queued_at": run.queued_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }
