"""Checkpoints: which weights there are, what they score, and which of them serve."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy import select

from api import schemas
from api.deps import Config, Db
from api.scores import checked_scores
from api.strict_body import StrictRoute
from api.trainings import checked_path
from clara import registry
from clara.db.tables import Checkpoint, RunKind
from clara.errors import InvalidInput, PromotionRefused
from clara.texts import check_characters
from workers.enqueue import queue_run, transaction
from workers.following import follow_all
from workers.recompression.queueing import PROMOTION

router = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"], route_class=StrictRoute)


@router.get("", summary="List checkpoints", responses=schemas.problems())
def list_checkpoints(open_db: Db) -> schemas.Checkpoints:
    """All checkpoints, newest first."""
    statement = select(Checkpoint).order_by(Checkpoint.created_at.desc(), Checkpoint.id)
    with open_db() as db:
        found = db.scalars(statement).all()
    return schemas.Checkpoints(checkpoints=[_shown(one) for one in found])


@router.post(
    "",
    status_code=202,
    summary="Register a checkpoint",
    responses=schemas.problems(400, 404, 413, 415, 422),
)
def register(open_db: Db, body: schemas.NewCheckpoint) -> schemas.QueuedRun:
    """Queue a look through a checkpoint's folder; the run's result names the checkpoint's id."""
    check_characters(body.path, field="/path")
    check_characters(body.base, field="/base")
    inputs = {"path": checked_path(body.path, "/path"), "base": body.base}
    with transaction(open_db) as (db, send):
        run = queue_run(db, send, RunKind.REGISTER, collection_id=None, inputs=inputs, total=1)
    return schemas.QueuedRun(run_id=run.id)


@router.get("/{checkpoint_id}", summary="Read a checkpoint", responses=schemas.problems(404, 422))
def read(open_db: Db, checkpoint_id: UUID) -> schemas.Checkpoint:
    """A checkpoint with its scores and what the gate said of it."""
    with open_db() as db:
        return _shown(registry.find(db, str(checkpoint_id)))


@router.post(
    "/{checkpoint_id}/scores",
    summary="Keep scores",
    responses=schemas.problems(400, 404, 413, 415, 422),
)
def score(open_db: Db, checkpoint_id: UUID, body: dict[str, dict[str, Any]]) -> schemas.Checkpoint:
    """Keep an evaluation's numbers, as `clara evaluate --json` writes them, with a checkpoint."""
    scores = checked_scores(body)
    with open_db.begin() as db:
        return _shown(registry.score(db, checkpoint_id, scores))


@router.post(
    "/{checkpoint_id}/promote",
    summary="Promote a checkpoint",
    responses=schemas.problems(400, 404, 409, 413, 415, 422),
)
def promote(
    open_db: Db, config: Config, checkpoint_id: UUID, body: schemas.NewPromotion
) -> schemas.Checkpoint:
    """Let it serve, if it was scored and is not worse than the active one by more than a margin.

    Nothing starts again. Collections whose latents it shares are answered from it at once. For the
    others a recompression is queued, which ends in a switch; until then the checkpoint before
    answers. A collection that a rollback holds stays where it is.
    """
    force = _force(body)
    if config.checkpoint:
        raise PromotionRefused(
            "CLARA_CHECKPOINT names the checkpoint that serves; a promotion would change nothing",
            field="CLARA_CHECKPOINT",
            remedy="Leave it empty, start again, and promote then.",
        )
    with transaction(open_db) as (db, send):
        row, verdict = registry.promote(db, checkpoint_id, margin=config.gate_margin, force=force)
        if row.active:
            kept = config.generations_kept
            follow_all(db, send, row, keep=kept, reason=PROMOTION, gate=force is None)
    if not row.active:
        raise registry.refusal(row, verdict)
    return _shown(row)


def _force(body: schemas.NewPromotion) -> str | None:
    """The reason of a forced promotion; None of a usual one."""
    check_characters(body.reason, field="/reason")
    if body.force and not body.reason.strip():
        raise InvalidInput(
            "a promotion by force takes a reason",
            field="/reason",
            remedy="Say why it is promoted whatever the gate says; it is kept with the checkpoint.",
        )
    return body.reason if body.force else None


def _shown(row: Checkpoint) -> schemas.Checkpoint:
    names = schemas.Checkpoint.model_fields
    return schemas.Checkpoint(**{name: getattr(row, name) for name in names})
