"""Generations on record: which one answers, which is being built, which can be gone back to.

Every change locks the collection's row first, and is one transaction of its caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara.db.tables import (
    Checkpoint,
    Collection,
    Generation,
    GenerationStatus,
    Latent,
    Passage,
)
from clara.errors import UnknownCollection, UnknownGeneration

SERVING = (GenerationStatus.ACTIVE, GenerationStatus.KEPT)
"""Their latents are complete but for what was written since."""

FORGET_AT_A_TIME = 2_000
"""Latents deleted in one transaction."""


@dataclass(frozen=True)
class Known:
    """A generation, detached from its row."""

    id: UUID
    collection_id: UUID
    number: int
    checkpoint_id: UUID
    fingerprint: str
    status: GenerationStatus


def active(db: Session, collection: UUID) -> Known | None:
    """The one questions are answered from; None before the collection's first latent."""
    row = db.scalar(
        select(Generation).where(
            Generation.collection_id == collection, Generation.status == GenerationStatus.ACTIVE
        )
    )
    return known(row) if row else None


def serving(db: Session, collection: UUID) -> list[Known]:
    """The active one, then those that are kept, the last active first."""
    rows = db.scalars(
        select(Generation)
        .where(Generation.collection_id == collection, Generation.status.in_(SERVING))
        .order_by(
            (Generation.status == GenerationStatus.ACTIVE).desc(),
            Generation.activated_at.desc(),
            Generation.number.desc(),
        )
    )
    return [known(row) for row in rows]


def ensure(db: Session, collection: UUID, checkpoint: Checkpoint) -> Known:
    """The active generation; where there is none, the first one, of that checkpoint.

    Safe for several workers at once.

    Raises:
        UnknownCollection: it was deleted meanwhile.
    """
    found = active(db, collection)
    if found:
        return found
    lock(db, collection)
    made = insert(Generation).values(
        collection_id=collection,
        number=_next_number(db, collection),
        checkpoint_id=checkpoint.id,
        fingerprint=checkpoint.fingerprint,
        status=GenerationStatus.ACTIVE,
        activated_at=func.clock_timestamp(),
    )
    db.execute(made.on_conflict_do_nothing())
    found = active(db, collection)
    assert found is not None  # noqa: S101 - the lock is held, and it was written if it was not there
    return found


def build(db: Session, collection: UUID, checkpoint: Checkpoint, run: UUID | None) -> Known:
    """The generation that is being built for a checkpoint: the one begun before, or a new one.

    Another one that was being built is given up: a collection has one at most.
    """
    lock(db, collection)
    begun = db.scalar(
        select(Generation).where(
            Generation.collection_id == collection, Generation.status == GenerationStatus.BUILDING
        )
    )
    if begun and (begun.checkpoint_id, begun.fingerprint) == (
        checkpoint.id,
        checkpoint.fingerprint,
    ):
        begun.run_id = run
        db.flush()
        return known(begun)
    if begun:
        begun.status = GenerationStatus.DROPPED
        db.flush()
    row = _new(db, collection, checkpoint, GenerationStatus.BUILDING, run)
    return known(row)


def switch(
    db: Session, generation: UUID, *, keep: int, gate: Mapping[str, Any] | None = None
) -> Known:
    """Answer from this generation from now on. The one before stays, to go back to.

    A few rows, however large the collection is: the status of its documents follows afterwards
    (`clara.pipeline.settle`), where the latents are others.

    Args:
        db: a transaction; questions see the old or the new one, never both.
        generation: one that is building or kept.
        keep: generations that stay, this one among them; older ones are dropped.
        gate: what was measured, where it was.
    Raises:
        UnknownGeneration: it is not there any more, or was dropped.
    """
    row = _locked(db, generation)
    if row.status is GenerationStatus.ACTIVE:
        return known(row)
    if row.status is GenerationStatus.DROPPED:
        raise _gone(row)
    before = db.scalar(
        update(Generation)
        .where(
            Generation.collection_id == row.collection_id,
            Generation.status == GenerationStatus.ACTIVE,
        )
        .values(status=GenerationStatus.KEPT)
        .returning(Generation.fingerprint)
    )
    if before != row.fingerprint:
        unsettled = update(Collection).where(Collection.id == row.collection_id)
        db.execute(unsettled.values(unsettled=True))
    row.status = GenerationStatus.ACTIVE
    row.activated_at = func.clock_timestamp()
    if gate is not None:
        row.gate = dict(gate)
    db.flush()
    _drop_beyond(db, row.collection_id, keep)
    db.refresh(row)
    return known(row)


def follow(
    db: Session, collection: UUID, checkpoint: Checkpoint, *, keep: int, run: UUID | None = None
) -> Known | None:
    """Where a checkpoint's latents are the active ones, let it answer at once, from a new number.

    Returns the active generation, or None where its latents are of another fingerprint.
    """
    lock(db, collection)
    now = active(db, collection)
    if now is None or now.fingerprint != checkpoint.fingerprint:
        return None
    if now.checkpoint_id == checkpoint.id:
        return now
    row = _new(db, collection, checkpoint, GenerationStatus.KEPT, run)
    return switch(db, row.id, keep=keep)


def roll_back(db: Session, collection: UUID, *, keep: int, to: int | None = None) -> Known:
    """Answer from an earlier generation again, and hold the collection there.

    Args:
        db: a transaction.
        collection: its id.
        keep: as of `switch`.
        to: number of the generation; the one that was active last where None.
    Raises:
        UnknownGeneration: there is none of that number, or nothing to go back to.
    """
    lock(db, collection)
    found = serving(db, collection)
    wanted = [one for one in found if one.status is GenerationStatus.KEPT]
    if to is not None:
        wanted = [one for one in found if one.number == to]
    if not wanted:
        raise UnknownGeneration(
            f"there is no generation {to} to go back to"
            if to is not None
            else "there is no earlier generation to go back to",
            field="generation",
            limit=", ".join(str(one.number) for one in found) or "none",
            remedy="Name one of those whose latents are still kept; CLARA_GENERATIONS_KEPT says "
            "how many are.",
        )
    db.execute(update(Collection).where(Collection.id == collection).values(held=True))
    return switch(db, wanted[0].id, keep=keep)


def drop(db: Session, generation: UUID, *, gate: Mapping[str, Any] | None = None) -> None:
    """Give up a generation that is not the active one; `gate` says why the gate refused it."""
    row = _locked(db, generation)
    if row.status is not GenerationStatus.ACTIVE:
        row.status = GenerationStatus.DROPPED
        row.gate = dict(gate) if gate is not None else row.gate
        db.flush()


def unneeded(db: Session, collection: UUID) -> list[str]:
    """Fingerprints of dropped generations whose latents no other generation shares."""
    needed = select(Generation.fingerprint).where(
        Generation.collection_id == collection, Generation.status != GenerationStatus.DROPPED
    )
    dropped = (
        select(Generation.fingerprint)
        .where(
            Generation.collection_id == collection,
            Generation.status == GenerationStatus.DROPPED,
            Generation.fingerprint.not_in(needed),
        )
        .distinct()
    )
    return list(db.scalars(dropped))


def forget(db: Session, collection: UUID, fingerprint: str) -> int:
    """Delete some of the latents of an unneeded fingerprint. Returns how many; 0 is the end.

    One that is needed after all, since a generation of it was begun meanwhile, loses none.
    """
    here = select(Collection.id).where(Collection.id == collection)
    db.execute(here.with_for_update(read=True))  # holds up `build`, but no document and no question
    if fingerprint not in unneeded(db, collection):
        return 0
    some = (
        select(Latent.passage_id)
        .join(Passage, Passage.id == Latent.passage_id)
        .where(Passage.collection_id == collection, Latent.fingerprint == fingerprint)
        .limit(FORGET_AT_A_TIME)
        .with_for_update(of=Latent, skip_locked=True)
    )
    gone = db.execute(
        delete(Latent)
        .where(Latent.passage_id.in_(some), Latent.fingerprint == fingerprint)
        .returning(Latent.passage_id)
    )
    return len(gone.all())


def lock(db: Session, collection: UUID) -> None:
    """Hold up everything else that changes which generation answers, until the commit.

    Raises:
        UnknownCollection: it was deleted meanwhile.
    """
    found = db.scalar(select(Collection.id).where(Collection.id == collection).with_for_update())
    if found is None:
        raise UnknownCollection(f"no collection has the id {collection}", field="collection")


def known(row: Generation) -> Known:
    """Detached from its row."""
    return Known(
        row.id, row.collection_id, row.number, row.checkpoint_id, row.fingerprint, row.status
    )


def _locked(db: Session, generation: UUID) -> Generation:
    collection = db.scalar(select(Generation.collection_id).where(Generation.id == generation))
    if collection is None:
        raise UnknownGeneration(f"no generation has the id {generation}", field="generation")
    lock(db, collection)
    row: Generation = db.get_one(Generation, generation, populate_existing=True)
    return row


def _gone(row: Generation) -> UnknownGeneration:
    return UnknownGeneration(
        f"generation {row.number} was dropped: its latents are gone",
        field="generation",
        remedy="Recompress the collection with that checkpoint.",
    )


def _new(
    db: Session,
    collection: UUID,
    checkpoint: Checkpoint,
    status: GenerationStatus,
    run: UUID | None,
) -> Generation:
    row = Generation(
        collection_id=collection,
        number=_next_number(db, collection),
        checkpoint_id=checkpoint.id,
        fingerprint=checkpoint.fingerprint,
        status=status,
        run_id=run,
    )
    db.add(row)
    db.flush()
    return row


def _next_number(db: Session, collection: UUID) -> int:
    largest = select(func.max(Generation.number)).where(Generation.collection_id == collection)
    return (db.scalar(largest) or 0) + 1


def _drop_beyond(db: Session, collection: UUID, keep: int) -> None:
    """Of those that serve, the active one and the last active ones stay."""
    beyond: Sequence[UUID] = [one.id for one in serving(db, collection)[keep:]]
    if beyond:
        db.execute(
            update(Generation)
            .where(Generation.id.in_(beyond))
            .values(status=GenerationStatus.DROPPED)
        )
