"""Trainings: start one, see how far it is, look at its curves. Cancel them as any run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import schemas
from api import training_schemas as shapes
from api.deps import Config, Db
from api.errors import TrainingNotBegun
from api.paging import PageQuery, is_after, next_page
from api.strict_body import StrictRoute
from api.trainings import resolved
from clara.db.tables import Run, RunKind
from clara.errors import UnknownRun
from clara.settings import Settings
from clara.training.curves import curves, plot
from clara.training.events import NAME
from workers.enqueue import queue_run, transaction

router = APIRouter(prefix="/v1/trainings", tags=["trainings"], route_class=StrictRoute)

_drawing = Lock()
"""Matplotlib shares fonts between figures."""


@router.post(
    "",
    status_code=202,
    summary="Train",
    responses=schemas.problems(400, 404, 413, 415, 422),
)
def start(open_db: Db, config: Config, body: shapes.NewTraining) -> schemas.QueuedRun:
    """Queue one stage of training; it ends in a registered checkpoint.

    Its files are checked by the worker before a model is loaded; what is wrong with them is kept
    with the failed run, by line and field.
    """
    with transaction(open_db) as (db, send):
        inputs = resolved(db, body, config)
        run = queue_run(db, send, RunKind.TRAIN, collection_id=None, inputs=inputs)
    return schemas.QueuedRun(run_id=run.id)


@router.get("", summary="List trainings", responses=schemas.problems(422))
def list_trainings(open_db: Db, page: PageQuery) -> shapes.Trainings:
    """A page of trainings, newest first."""
    statement = (
        select(Run)
        .where(Run.kind == RunKind.TRAIN)
        .order_by(Run.created_at.desc(), Run.id.desc())
        .limit(page.limit + 1)
    )
    if page.after:
        statement = statement.where(is_after(page.after, Run, newest_first=True))
    with open_db() as db:
        rows = list(db.scalars(statement))
    following = next_page(rows, page.limit)
    return shapes.Trainings(
        trainings=[shapes.Training(**_shown(run)) for run in rows], next=following
    )


@router.get("/{run_id}", summary="Read a training", responses=schemas.problems(404, 422))
def read(open_db: Db, run_id: UUID) -> shapes.TrainingDetail:
    """A training: how far it is, its losses and scores, and its result or error."""
    with open_db() as db:
        run = _found(db, run_id)
    asked = ("config", "data", "dev", "base", "checkpoint")
    return shapes.TrainingDetail(
        **_shown(run), **{name: run.inputs[name] for name in asked}, result=run.result
    )


@router.get(
    "/{run_id}/curves", summary="Curves of a training", responses=schemas.problems(404, 409, 422)
)
def read_curves(open_db: Db, config: Config, run_id: UUID) -> shapes.Curves:
    """Losses and dev scores by step, as far as it is."""
    return shapes.Curves.model_validate(curves(_folder(open_db, config, run_id)))


@router.get(
    "/{run_id}/curves.png",
    summary="Plot of a training",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **schemas.problems(404, 409, 422)},
)
def draw_curves(open_db: Db, config: Config, run_id: UUID) -> Response:
    """The same as a picture."""
    folder = _folder(open_db, config, run_id)
    with tempfile.TemporaryDirectory(prefix="clara-curves-") as made, _drawing:
        picture = Path(made) / "curves.png"
        plot(folder, picture)
        return Response(picture.read_bytes(), media_type="image/png")


def _folder(open_db: Db, config: Settings, run_id: UUID) -> Path:
    """Where a training's log is.

    Raises:
        UnknownRun: there is no such training.
        TrainingNotBegun: it has written none yet.
    """
    with open_db() as db:
        run = _found(db, run_id)
    folder = config.trainings / str(run.id)
    if not (folder / NAME).is_file():
        raise TrainingNotBegun(
            f"training {run.id} is {run.status} and has not taken a step",
            field="run_id",
            remedy="Look at its progress with GET /v1/trainings/{run_id}.",
        )
    return folder


def _found(db: Session, run_id: UUID) -> Run:
    run = db.get(Run, run_id)
    if run is None or run.kind is not RunKind.TRAIN:
        raise UnknownRun(
            f"no training has the id {run_id}", field="run_id", remedy="Look at GET /v1/trainings."
        )
    return run


def _shown(run: Run) -> dict[str, Any]:
    details = run.details
    numbers = ("loss", "tokens_per_s", "seconds", "seconds_left", "scores")
    progress = shapes.TrainingProgress(
        step=run.done,
        steps=run.total,
        phase=run.phase,
        parts=details.get("parts", {}),
        **{name: details.get(name) for name in numbers},
    )
    return {
        "id": run.id,
        "name": run.inputs["name"],
        "stage": run.inputs["stage"],
        "status": run.status,
        "progress": progress,
        "checkpoint_id": (run.result or {}).get("checkpoint_id"),
        "attempts": run.attempts,
        "error": schemas.public(run.error),
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }
