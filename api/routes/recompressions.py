"""Recompressions and generations: what a collection answers from, and how that changes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from api import recompression_schemas as shapes
from api import schemas
from api.deps import Config, Db, collection_named
from api.strict_body import StrictRoute
from clara import generations, registry
from clara.db.tables import Checkpoint, Collection, Generation, Latent, Passage
from clara.errors import UnknownCheckpoint
from clara.pipeline.recompress_plan import Plan, make_plan, rebuild_seconds
from clara.settings import Settings
from clara.texts import check_characters
from workers import runs
from workers.enqueue import queue_compress, transaction
from workers.recompression.planning import way_to
from workers.recompression.queueing import ASKED, active_recompression, busy, queue_recompress

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=StrictRoute)

_DRY_RUN: dict[int | str, dict[str, Any]] = {
    200: {"model": shapes.RecompressionPlan, "description": "The plan of a dry run"}
}


@router.post(
    "/{name}/recompressions",
    status_code=202,
    response_model=shapes.QueuedRecompression,
    summary="Recompress a collection",
    responses=schemas.problems(400, 404, 409, 413, 415, 422) | _DRY_RUN,
)
def recompress(
    open_db: Db, config: Config, name: str, body: shapes.NewRecompression
) -> shapes.QueuedRecompression | JSONResponse:
    """Bring a collection's latents up to a checkpoint; with `dry_run`, say what that takes.

    Latents of another fingerprint are made beside the active ones, which go on answering; after
    the recall gate the collection switches at once. Nothing is compressed twice: a run that was
    killed, cancelled or refused leaves what it made to the next one.

    A checkpoint that is named, and is not the promoted one, holds the collection: promotions and
    nights leave it there until a recompression without a name is asked for.

    With `rebuild_indexes` the lexical index is made anew from the record, whatever is stale: where
    a release changed how words are analysed, or the index is damaged. It takes over with the
    generation, at once. A collection that is held stays where it is then.
    """
    if body.checkpoint is not None:
        check_characters(body.checkpoint, field="/checkpoint")
    with transaction(open_db) as (db, send):
        collection = collection_named(db, name)
        stays = body.rebuild_indexes and body.checkpoint is None and collection.held
        checkpoint = _wanted(db, config, body.checkpoint, collection, stays=stays)
        if body.dry_run:
            plan = make_plan(db, collection.id, checkpoint, form=config.latent_form)
            shown = _planned(plan, db, collection, checkpoint, rebuild=body.rebuild_indexes)
            return JSONResponse(shown.model_dump(mode="json"))
        run = queue_recompress(
            db,
            send,
            collection.id,
            checkpoint_id=checkpoint.id,
            reason=ASKED,
            gate=body.gate,
            rebuild_indexes=body.rebuild_indexes,
        )
        if run is None:
            raise busy(active_recompression(db, collection.id), collection.name)
        held = stays or (body.checkpoint is not None and not checkpoint.active)
        db.execute(update(Collection).where(Collection.id == collection.id).values(held=held))
        return shapes.QueuedRecompression(run_id=run.id)


@router.get("/{name}/generations", summary="List generations", responses=schemas.problems(404, 422))
def list_generations(open_db: Db, name: str) -> shapes.Generations:
    """All generations of a collection, the newest first: which one answers, which it can go back
    to, and what the recall gate said of them."""
    with open_db() as db:
        collection = collection_named(db, name)
        rows = db.scalars(
            select(Generation)
            .where(Generation.collection_id == collection.id)
            .order_by(Generation.number.desc())
        ).all()
        shown = [_shown(db, row) for row in rows]
    return shapes.Generations(collection=collection.name, held=collection.held, generations=shown)


@router.post(
    "/{name}/rollback",
    summary="Go back to a generation",
    responses=schemas.problems(400, 404, 413, 415, 422),
)
def rollback(open_db: Db, config: Config, name: str, body: shapes.NewRollback) -> shapes.RolledBack:
    """Answer from an earlier generation at once, and stay there: promotions and nights leave the
    collection alone until a recompression is asked for. One that is at work is cancelled.

    The status of the documents follows: a compress run looks at all of them, and makes the latents
    of those that were written since.
    """
    with transaction(open_db) as (db, send):
        collection = collection_named(db, name)
        generations.lock(db, collection.id)
        working = active_recompression(db, collection.id)
        now = generations.roll_back(db, collection.id, keep=config.generations_kept, to=body.to)
        if working:
            runs.cancel(db, working.id)
        queue_compress(db, send, collection.id)
        shown = shapes.Answering(**_described(db, db.get_one(Generation, now.id)))
    return shapes.RolledBack(generation=shown, cancelled=working.id if working else None)


def _wanted(
    db: Session, config: Settings, named: str | None, collection: Collection, *, stays: bool
) -> Checkpoint:
    """The checkpoint named, else the promoted one, unless it stays, else the one that answers."""
    if named is not None:
        return registry.find(db, named)
    promoted = None if config.checkpoint or stays else registry.active(db)
    active = generations.active(db, collection.id)
    if promoted is not None:
        return promoted
    if active is not None:
        return db.get_one(Checkpoint, active.checkpoint_id)
    raise UnknownCheckpoint(
        f"no checkpoint was promoted, and collection {collection.name} answers from none yet",
        field="/checkpoint",
        remedy="Name one of GET /v1/checkpoints.",
    )


def _planned(
    plan: Plan, db: Session, collection: Collection, checkpoint: Checkpoint, *, rebuild: bool
) -> shapes.RecompressionPlan:
    active = generations.active(db, collection.id)
    new_index = None
    if rebuild:
        seconds = shapes.Estimate(**asdict(rebuild_seconds(db, plan.passages)))
        new_index = shapes.Rebuild(passages=plan.passages, seconds=seconds)
    return shapes.RecompressionPlan(
        **plan.as_dict(),
        collection=collection.name,
        checkpoint_id=checkpoint.id,
        checkpoint=checkpoint.name,
        way=way_to(plan, active, checkpoint).value,
        rebuild=new_index,
    )


def _shown(db: Session, row: Generation) -> shapes.Generation:
    latents = (
        select(func.count())
        .select_from(Latent)
        .join(Passage, Passage.id == Latent.passage_id)
        .where(Passage.collection_id == row.collection_id, Latent.fingerprint == row.fingerprint)
    )
    return shapes.Generation(latents=db.scalar(latents) or 0, **_described(db, row))


def _described(db: Session, row: Generation) -> dict[str, Any]:
    """All of it that takes no counting."""
    return {
        "number": row.number,
        "status": row.status,
        "checkpoint_id": row.checkpoint_id,
        "checkpoint": db.get_one(Checkpoint, row.checkpoint_id).name,
        "fingerprint": row.fingerprint,
        "run_id": row.run_id,
        "gate": row.gate,
        "created_at": row.created_at,
        "activated_at": row.activated_at,
    }
