"""Collections follow a checkpoint: at once where its latents are there, else by a recompression."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from clara import generations
from clara.db.tables import Checkpoint, Collection, Generation, GenerationStatus
from clara.errors import UnknownCollection
from workers.enqueue import Send
from workers.recompression.queueing import DEFAULT, queue_recompress

log = logging.getLogger(__name__)


@dataclass
class Following:
    """What became of the collections that were behind."""

    switched: list[UUID] = field(default_factory=list)
    """They answer from the checkpoint now, with nothing recompressed."""
    queued: list[UUID] = field(default_factory=list)
    """They will, once their recompression is done."""


@dataclass(frozen=True)
class _How:
    checkpoint: Checkpoint
    keep: int
    reason: str
    gate: bool


def follow_all(
    db: Session, send: Send, checkpoint: Checkpoint, *, keep: int, reason: str, gate: bool
) -> Following:
    """Bring every collection that is answered from another checkpoint to this one.

    One that is held stays, and one that has no generation yet takes the default checkpoint when it
    needs one.

    Args:
        db: a transaction.
        send: of `workers.enqueue.transaction`.
        checkpoint: with the fingerprint of where it is loaded.
        keep: generations of a collection whose latents stay.
        reason: kept with the recompressions.
        gate: whether they ask the recall gate before they switch.
    """
    how = _How(checkpoint, keep, reason, gate)
    done = Following()
    for collection in behind(db, checkpoint):
        _follow(db, send, collection, how, done)
    if done.switched or done.queued:
        log.warning(
            "checkpoint %s (%s): %d collections switched, %d recompressions queued",
            *(checkpoint.name, reason, len(done.switched), len(done.queued)),
        )
    return done


def follow_default(db: Session, send: Send, checkpoint: Checkpoint, *, keep: int) -> Following:
    """The same for the checkpoint a worker starts with; a start overrules nothing.

    A collection stays where the recall gate refused this checkpoint, and where it is answered from
    trained weights while this one is untrained. A promoted one goes through the gate; one that a
    setting names does not.
    """
    how = _How(checkpoint, keep, DEFAULT, gate=checkpoint.active)
    done = Following()
    for collection in behind(db, checkpoint):
        if not _stays(db, checkpoint, collection):
            _follow(db, send, collection, how, done)
    return done


def behind(db: Session, checkpoint: Checkpoint) -> Sequence[UUID]:
    """Collections that are answered from another checkpoint, or from its latents in another
    precision, and are not held there."""
    other = (Generation.checkpoint_id != checkpoint.id) | (
        Generation.fingerprint != checkpoint.fingerprint
    )
    return db.scalars(
        select(Collection.id)
        .join(Generation, Generation.collection_id == Collection.id)
        .where(Generation.status == GenerationStatus.ACTIVE, ~Collection.held, other)
        .order_by(Collection.id)
    ).all()


def _follow(db: Session, send: Send, collection: UUID, how: _How, done: Following) -> None:
    checkpoint = how.checkpoint
    try:
        if generations.follow(db, collection, checkpoint, keep=how.keep):
            done.switched.append(collection)
            return
    except UnknownCollection:  # deleted meanwhile
        return
    if queue_recompress(
        db, send, collection, checkpoint_id=checkpoint.id, reason=how.reason, gate=how.gate
    ):
        done.queued.append(collection)


def _stays(db: Session, checkpoint: Checkpoint, collection: UUID) -> bool:
    answering, trained = db.execute(
        select(Generation, Checkpoint.trained)
        .join(Checkpoint, Checkpoint.id == Generation.checkpoint_id)
        .where(Generation.collection_id == collection, Generation.status == GenerationStatus.ACTIVE)
    ).one()
    if trained and not checkpoint.trained:
        return True
    refused = select(Generation.id).where(
        Generation.collection_id == collection,
        Generation.checkpoint_id == checkpoint.id,
        Generation.status == GenerationStatus.DROPPED,
        Generation.activated_at.is_(None),
        Generation.gate.is_not(None),
        Generation.created_at > answering.activated_at,
    )
    return db.scalar(refused.limit(1)) is not None
