"""Runs: what is being worked on, how far it is, stopping it, and trying it again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy import Select, select
from starlette.concurrency import run_in_threadpool

from api import run_schemas as shapes
from api import runs as rows
from api import schemas
from api.deps import Db, collection_named
from api.paging import Page, is_after, next_page
from api.strict_body import StrictRoute
from api.waiting import Wait, until_ended
from clara.db.connect import OpenDb
from clara.db.tables import Run, RunKind, RunStatus
from clara.errors import RunNotRetryable
from clara.texts import check_characters
from workers import children, runs
from workers.enqueue import transaction
from workers.retrying import AT_ONCE, failed_with, retry, retry_all

router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=StrictRoute)

REASONS = 20
"""Refusals that are told one by one."""


class RunPage(Page):
    """Which runs to list."""

    kind: RunKind | None = Field(
        default=None, description="Only those; parts of recompressions are listed only by name."
    )
    status: RunStatus | None = Field(default=None, description="Only those.")
    collection: str | None = Field(default=None, description="Only those of one collection.")
    code: str | None = Field(
        default=None, max_length=200, description="Only those with an error of this code."
    )
    parent: UUID | None = Field(default=None, description="Only the children of one run.")


@router.get("", summary="List runs", responses=schemas.problems(404, 422))
def list_runs(open_db: Db, page: Annotated[RunPage, Query()]) -> shapes.Runs:
    """A page of runs, newest first. With `status=failed` it is what was given up."""
    if page.code is not None:
        check_characters(page.code, field="code")
    statement = rows.with_names().where(*_conditions(page))
    statement = statement.order_by(Run.created_at.desc(), Run.id.desc()).limit(page.limit + 1)
    with open_db() as db:
        if page.collection is not None:
            collection = collection_named(db, page.collection)
            statement = statement.where(Run.collection_id == collection.id)
        found = db.execute(statement).all()
    names = {run.id: name for run, name in found}
    listed = [run for run, _ in found]
    following = next_page(listed, page.limit)
    return shapes.Runs(
        runs=[shapes.Run(**rows.shown(run, names[run.id])) for run in listed], next=following
    )


@router.get("/{run_id}", summary="Read a run", responses=schemas.problems(404, 422))
async def read(request: Request, open_db: Db, run_id: UUID, wait: Wait = 0.0) -> shapes.RunDetail:
    """A run: where it stands, how far it is and its children are, and its result or error."""
    if wait:
        await until_ended(request, open_db, run_id, wait)
    return await run_in_threadpool(_read, open_db, run_id)


@router.get(
    "/{run_id}/traceback", summary="Read a run's traceback", responses=schemas.problems(404, 422)
)
def read_traceback(open_db: Db, run_id: UUID) -> shapes.Traceback:
    """Where in the program it failed last: for whoever runs this server, not for its users."""
    with open_db() as db:
        run, _ = rows.found(db, run_id)
    return shapes.Traceback(run_id=run.id, traceback=(run.error or {}).get("traceback"))


@router.post("/{run_id}/cancel", summary="Cancel a run", responses=schemas.problems(404, 409, 422))
def cancel(open_db: Db, run_id: UUID) -> shapes.RunDetail:
    """Cancel a run that has not ended, and its children; work on it stops within two seconds, a
    training between two steps. Documents that waited for it are failed, and may be written again.
    """
    with open_db.begin() as db:
        run = runs.cancel(db, run_id)
        if run is None:
            raise rows.not_cancellable(rows.found(db, run_id)[0])
    if run.parent_id:
        children.wake(open_db, run.parent_id)
    return _read(open_db, run_id)


@router.post(
    "/retry",
    status_code=202,
    summary="Retry failed runs",
    responses=schemas.problems(400, 404, 413, 415, 422),
)
def retry_failed(open_db: Db, body: shapes.RetryFailed) -> shapes.Retried:
    """Queue failed runs again, the newest first: at most 500 at once; `next` says where to go on.

    Those that have nothing left to do stay failed, with the reason.
    """
    with transaction(open_db) as (db, send):
        statement = _failed(body)
        if body.collection is not None:
            collection = collection_named(db, body.collection)
            statement = statement.where(Run.collection_id == collection.id)
        listed = list(db.execute(statement).all())
        following = next_page(listed, AT_ONCE)
        queued, refused = retry_all(db, send, [row.id for row in listed])
    return shapes.Retried(
        queued=len(queued),
        refused=len(refused),
        reasons=[_refused(run_id, reason) for run_id, reason in refused[:REASONS]],
        next=following,
    )


@router.post(
    "/{run_id}/retry",
    status_code=202,
    summary="Retry a run",
    responses=schemas.problems(404, 409, 422),
)
def retry_one(open_db: Db, run_id: UUID) -> shapes.RunDetail:
    """Queue a failed or cancelled run again, with all its attempts.

    Refused where nothing is left to do: its documents were written again, its question or its
    collection was deleted, or another run does the same by now.
    """
    with transaction(open_db) as (db, send):
        retry(db, send, run_id)
    return _read(open_db, run_id)


def _conditions(page: RunPage) -> list[Any]:
    whole = Run.kind != RunKind.RECOMPRESS_PART
    return [
        *([Run.kind == page.kind] if page.kind else []),
        *([Run.parent_id == page.parent] if page.parent else []),
        *([] if page.kind or page.parent else [whole]),
        *([Run.status == page.status] if page.status else []),
        *([failed_with(page.code)] if page.code else []),
        *([is_after(page.after, Run, newest_first=True)] if page.after else []),
    ]


def _failed(body: shapes.RetryFailed) -> Select[UUID, datetime]:
    """Runs that a body names, one more than are retried at once."""
    if body.code is not None:
        check_characters(body.code, field="/code")
    conditions = [
        Run.status == RunStatus.FAILED,
        *([Run.kind == body.kind] if body.kind else [Run.kind != RunKind.RECOMPRESS_PART]),
        *([failed_with(body.code)] if body.code else []),
        *([Run.finished_at >= body.since] if body.since else []),
        *([is_after(body.after, Run, newest_first=True)] if body.after else []),
    ]
    newest_first = (Run.created_at.desc(), Run.id.desc())
    return (
        select(Run.id, Run.created_at).where(*conditions).order_by(*newest_first).limit(AT_ONCE + 1)
    )


def _refused(run_id: UUID, reason: RunNotRetryable) -> shapes.Refused:
    return shapes.Refused(run_id=run_id, detail=str(reason))


def _read(open_db: OpenDb, run_id: UUID) -> shapes.RunDetail:
    with open_db() as db:
        return rows.detail(db, run_id)
