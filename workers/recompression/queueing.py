"""Recompressions as runs: one per collection at a time, its parts its children."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Float, cast, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Generation, GenerationStatus, Run, RunKind, RunStatus
from clara.errors import RecompressionBusy
from clara.pipeline.recompress import Range
from workers import runs
from workers.enqueue import Send, transaction
from workers.runs import Held

ASKED, NIGHT, PROMOTION, DEFAULT = "asked", "night", "promotion", "default checkpoint"
"""Why a collection is recompressed."""

REPLACING = (PROMOTION, DEFAULT)
"""Reasons that end a recompression for another checkpoint: the one it was for is not wanted now."""


def queue_recompress(
    db: Session,
    send: Send,
    collection_id: UUID,
    *,
    checkpoint_id: UUID,
    reason: str,
    gate: bool,
    rebuild_indexes: bool = False,
    deadline: datetime | None = None,
    parent_id: UUID | None = None,
) -> Run | None:
    """Queue a recompression of a collection; None where one is active already.

    One that was promoted to meanwhile is not held up by one for another checkpoint: that one is
    cancelled, and the generation it was building is given up.

    Args:
        db: a transaction.
        send: of the transaction.
        collection_id: of the collection; locked until the commit.
        checkpoint_id: whose latents are wanted.
        reason: why, such as ASKED.
        gate: whether the recall gate must let a new generation through.
        rebuild_indexes: whether the lexical index is made anew too.
        deadline: when it pauses for another run to go on.
        parent_id: the night it belongs to.
    Raises:
        UnknownCollection: it was deleted meanwhile.
    """
    generations.lock(db, collection_id)  # before any run: the order in which a switch takes them
    if reason in REPLACING:
        _end_others(db, collection_id, checkpoint_id)
    new = insert(Run).values(
        kind=RunKind.RECOMPRESS,
        status=RunStatus.QUEUED,
        collection_id=collection_id,
        parent_id=parent_id,
        inputs={
            "checkpoint_id": str(checkpoint_id),
            "reason": reason,
            "gate": gate,
            "rebuild_indexes": rebuild_indexes,
            "deadline": deadline.isoformat() if deadline else None,
        },
    )
    run: Run | None = db.scalar(new.on_conflict_do_nothing().returning(Run))
    if run is not None:
        send(RunKind.RECOMPRESS, run.id)
    return run


def active_recompression(db: Session, collection_id: UUID) -> Run | None:
    """The one that is at work on a collection, or waits to be."""
    found: Run | None = db.scalar(
        select(Run).where(
            Run.collection_id == collection_id,
            Run.kind == RunKind.RECOMPRESS,
            Run.status.in_(ACTIVE),
        )
    )
    return found


def busy(run: Run | None, collection: str) -> RecompressionBusy:
    """What is told to who asks for a second one."""
    which = f"by run {run.id} ({run.phase or run.status.value})" if run else "already"
    return RecompressionBusy(
        f"collection {collection} is being recompressed {which}",
        field="collection",
        limit=str(run.id) if run else None,
        remedy="Wait for it with GET /v1/runs/{run_id}?wait=30, or cancel it first.",
    )


def add_parts(db: Session, send: Send, held: Held, parts: Sequence[Range], **inputs: Any) -> None:
    """Write the children of a recompression, one per range, and ask for their messages."""
    for part in parts:
        run = Run(
            kind=RunKind.RECOMPRESS_PART,
            parent_id=held.run.id,
            collection_id=part.collection,
            total=part.passages,
            inputs={
                "first": str(part.first) if part.first else None,
                "before": str(part.before) if part.before else None,
                **inputs,
            },
        )
        db.add(run)
        db.flush()
        send(RunKind.RECOMPRESS_PART, run.id)


def parts(db: Session, parent: UUID, *, wave: int | None = None) -> list[Run]:
    """The parts of a recompression, or of one wave of it, the first one first."""
    wanted = select(Run).where(Run.parent_id == parent, Run.kind == RunKind.RECOMPRESS_PART)
    if wave is not None:
        wanted = wanted.where(Run.inputs["wave"].as_integer() == wave)
    return list(db.scalars(wanted.order_by(Run.created_at, Run.id)))


def count_on_parent(db: Session, part: Held, passages: int) -> None:
    """Add what a part has done to the progress of its recompression, which waits."""
    if part.run.parent_id is None:
        return
    since = Run.details["since"]
    seconds = func.extract("epoch", func.clock_timestamp()) - cast(since["at"].as_string(), Float)
    fresh = Run.done + passages - since["done"].as_integer()
    db.execute(
        update(Run)
        .where(Run.id == part.run.parent_id, Run.status == RunStatus.RUNNING, Run.lease.is_(None))
        .values(
            done=func.least(Run.done + passages, Run.total),
            rate=cast(fresh, Float) / func.greatest(seconds, 0.001),
        )
    )


def wake_a_part(open_db: OpenDb) -> UUID | None:
    """Send a part that waits for its turn, since one has just ended. Returns its id."""
    now = func.clock_timestamp()
    waiting = (
        select(Run.id)
        .where(
            Run.kind == RunKind.RECOMPRESS_PART,
            Run.status == RunStatus.QUEUED,
            Run.queued_at > now,
            Run.error.is_(None),  # one that failed has its own time to wait
        )
        .order_by(Run.created_at, Run.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    due = update(Run).where(Run.id.in_(waiting.scalar_subquery()))
    with transaction(open_db) as (db, send):
        found: UUID | None = db.scalar(due.values(queued_at=now, sent_at=now).returning(Run.id))
        if found:
            send(RunKind.RECOMPRESS_PART, found)
    return found


def _end_others(db: Session, collection_id: UUID, checkpoint_id: UUID) -> None:
    other = active_recompression(db, collection_id)
    if other is not None and other.inputs.get("checkpoint_id") != str(checkpoint_id):
        runs.cancel(db, other.id)
    building = db.scalar(
        select(Generation.id).where(
            Generation.collection_id == collection_id,
            Generation.status == GenerationStatus.BUILDING,
            Generation.checkpoint_id != checkpoint_id,
        )
    )
    if building:
        generations.drop(db, building)
