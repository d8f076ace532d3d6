"""JSON shapes of runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from api.deps import NAME
from api.schemas import NAME_CHARS, Request
from clara.db.tables import RunKind, RunStatus


class Progress(BaseModel):
    """In the unit of the run's kind: documents, passages, questions or steps."""

    done: int
    total: int
    phase: str = Field(default="", description="What is being done, where a kind has parts.")
    rate: float | None = Field(default=None, description="Units a second, where it was measured.")
    seconds_left: float | None = Field(default=None, description="At that rate, while it runs.")


class Run(BaseModel):
    """One recorded piece of work."""

    id: UUID
    parent_id: UUID | None = Field(description="The run it is a part of.")
    kind: RunKind
    status: RunStatus
    collection: str | None
    progress: Progress
    attempts: int
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    timings: dict[str, Any]
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Children(BaseModel):
    """Runs that this one waits for."""

    by_status: dict[RunStatus, int]
    progress: Progress = Field(description="Of all of them together.")


class RunDetail(Run):
    """A run and what it works on."""

    inputs: dict[str, Any]
    details: dict[str, Any] = Field(description="What its kind tells beside the progress.")
    children: Children | None


class Runs(BaseModel):
    """A page of runs, newest first."""

    runs: list[Run]
    next: str | None


class Traceback(BaseModel):
    """Where in the program a run failed last; null where it did not fail by an exception."""

    run_id: UUID
    traceback: str | None


class RetryFailed(Request):
    """Which failed runs to try again; what is left out names all."""

    kind: RunKind | None = Field(default=None, strict=False)
    collection: str | None = Field(default=None, pattern=NAME)
    code: str | None = Field(
        default=None, max_length=NAME_CHARS, description="Of their error, as in `error.code`."
    )
    since: AwareDatetime | None = Field(
        default=None, strict=False, description="They failed then or later; with its zone."
    )
    after: str | None = Field(
        default=None, max_length=200, description="`next` of an earlier answer."
    )


class Refused(BaseModel):
    """A run that was not queued again, and why."""

    run_id: UUID
    detail: str


class Retried(BaseModel):
    """What became of the failed runs that were looked at, newest first."""

    queued: int
    refused: int
    reasons: list[Refused] = Field(description="Of the first that were refused.")
    next: str | None = Field(description="Give it as `after`, to go on with older ones.")
