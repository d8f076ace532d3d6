"""Nights: when every collection is looked through, and what came of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import defer, load_only

from api import schemas
from api.deps import Config, Db
from api.paging import PageQuery, is_after, next_page
from clara.db.tables import Night, Run, RunStatus
from clara.errors import UnknownNight

router = APIRouter(prefix="/v1/nights", tags=["nights"])


class ListedNight(BaseModel):
    """One tick of the schedule."""

    id: UUID
    schedule: str = Field(description="Cron expression and time zone.")
    tick: datetime = Field(description="When it was due.")
    run_id: UUID | None
    status: RunStatus | None = Field(
        description="Of its run; none of the tick before a schedule was first looked at."
    )
    totals: dict[str, int] = Field(description="Sums over all collections, once it has ended.")
    created_at: datetime
    finished_at: datetime | None


class NightDetail(ListedNight):
    """A night and what it did, collection by collection."""

    ends: datetime | None = Field(description="When it pauses; the next one goes on.")
    skipped: list[datetime] = Field(description="Ticks before it that passed while nothing ran.")
    skipped_more: bool = Field(description="Whether there were more than those.")
    collections: list[dict[str, Any]] = Field(
        description="What was stale by reason, what was done, what remains, and the audit."
    )


class Nights(BaseModel):
    """A page of nights, newest first, and the schedule as it is now."""

    nights: list[ListedNight]
    next: str | None
    schedule: str | None = Field(description="None where CLARA_NIGHTLY is empty: never.")
    due: datetime | None = Field(description="When the next night begins.")


@router.get("", summary="List nights", responses=schemas.problems(422))
def list_nights(open_db: Db, config: Config, page: PageQuery) -> Nights:
    """A page of nights, newest first."""
    statement = (
        select(Night, Run, Night.report["totals"])
        .outerjoin(Run, Run.id == Night.run_id)
        # a report is as long as there are collections
        .options(defer(Night.report), load_only(Run.status, Run.finished_at))
        .order_by(Night.created_at.desc(), Night.id.desc())
        .limit(page.limit + 1)
    )
    if page.after:
        statement = statement.where(is_after(page.after, Night, newest_first=True))
    with open_db() as db:
        shown = {
            night.id: (night, ListedNight(**_shown(night, run, totals)))
            for night, run, totals in db.execute(statement)
        }
    listed = [night for night, _ in shown.values()]
    following = next_page(listed, page.limit)
    schedule = config.nights
    return Nights(
        nights=[shown[night.id][1] for night in listed],
        next=following,
        schedule=schedule.name if schedule else None,
        due=next(schedule.due_after(datetime.now(UTC)), None) if schedule else None,
    )


@router.get("/{night_id}", summary="Read a night", responses=schemas.problems(404, 422))
def read(open_db: Db, night_id: UUID) -> NightDetail:
    """A night with its report; one that is at work tells how far it is."""
    with open_db() as db:
        night = db.get(Night, night_id)
        run = db.get(Run, night.run_id) if night and night.run_id else None
    if night is None:
        raise UnknownNight(
            f"no night has the id {night_id}", field="night_id", remedy="Look at GET /v1/nights."
        )
    report = night.report if night.finished_at or run is None else night.report | run.details
    return NightDetail(
        **_shown(night, run, report.get("totals")),
        ends=report.get("ends"),
        skipped=report.get("skipped", []),
        skipped_more=report.get("skipped_more", False),
        collections=sorted(
            report.get("collections", {}).values(), key=lambda entry: str(entry.get("collection"))
        ),
    )


def _shown(night: Night, run: Run | None, totals: dict[str, int] | None) -> dict[str, Any]:
    return {
        "id": night.id,
        "schedule": night.schedule,
        "tick": night.tick,
        "run_id": night.run_id,
        "status": run.status if run else None,
        "totals": totals or {},
        "created_at": night.created_at,
        "finished_at": night.finished_at or (run.finished_at if run else None),
    }
