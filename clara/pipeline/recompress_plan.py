"""What a recompression would do, and what it would cost: a few statements, no block is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, exists, false, func, or_, select
from sqlalchemy.orm import Session, aliased

from clara.db.tables import (
    Checkpoint,
    Document,
    DocumentStatus,
    Latent,
    Passage,
    Run,
    RunKind,
    RunStatus,
)
from clara.pipeline.recompress import among
from clara.pipeline.recompress_check import SCALE_BYTES, sound
from clara.types import LatentForm

SAMPLE = 1_000
"""Blocks whose length is averaged."""

RUNS = 20
"""Last runs whose speed is averaged."""

UNKNOWN = "nothing measured yet"


class Stale(StrEnum):
    """Why a passage's latent is not as it should be; one reason each."""

    TEXT = "text"
    """Its document was written again and waits to be split: whatever it has is of old words."""
    DAMAGED = "damaged"
    """Its block does not match its checksum or its shape."""
    FINGERPRINT = "fingerprint"
    """It has latents of other compressors only."""
    MISSING = "missing"
    """It has none at all."""


@dataclass(frozen=True)
class Estimate:
    """A number and what it rests on."""

    value: float | None
    basis: str


@dataclass(frozen=True)
class Plan:
    """What a collection lacks of a checkpoint's latents."""

    fingerprint: str
    passages: int
    """Of the collection."""
    stale: Mapping[str, int]
    """Passages by reason."""
    too_long: int
    """Passages without a latent that the checkpoint's compressor cannot read: they stay text."""
    to_make: int
    """Latents to make; a document that waits to be split counts as it is now."""
    tokens: int
    """That the compressor reads for them."""
    bytes: Estimate
    """That they take."""
    seconds: Estimate
    """On one model worker."""

    def as_dict(self) -> dict[str, Any]:
        """As it is kept with a run, and shown."""
        return asdict(self)


def make_plan(
    db: Session,
    collection: UUID,
    checkpoint: Checkpoint,
    *,
    form: LatentForm,
    damaged: Sequence[UUID] = (),
) -> Plan:
    """Compare a collection with what a checkpoint would make of it. Writes nothing.

    Args:
        db: a transaction.
        collection: its id.
        checkpoint: the one to recompress with.
        form: in which new blocks are kept.
        damaged: passages whose block was found damaged, and is gone.
    """
    rows = db.execute(_counts(collection, checkpoint, damaged)).all()
    lacking = [row for row in rows if row.lacks]
    tokens = sum(row.tokens - row.long_tokens for row in lacking)
    too_long = sum(row.long for row in lacking)
    to_make = sum(row.passages for row in lacking) - too_long
    mean = tokens / to_make if to_make else 0.0
    return Plan(
        fingerprint=checkpoint.fingerprint,
        passages=sum(row.passages for row in rows),
        stale={
            reason.value: sum(row.passages for row in rows if row.reason == reason)
            for reason in Stale
        },
        too_long=too_long,
        to_make=to_make,
        tokens=tokens,
        bytes=_bytes(db, collection, checkpoint, to_make, mean, form),
        seconds=_seconds(db, checkpoint.fingerprint, tokens, mean),
    )


def speed(db: Session, fingerprint: str, tokens_per_passage: float) -> Estimate:
    """Tokens a second that a model worker compressed, the last times it was measured."""
    same = _part_speed(db, fingerprint)
    if same:
        return Estimate(same, f"the last {RUNS} parts compressed with this checkpoint")
    others = _part_speed(db, None)
    if others:
        return Estimate(others, f"the last {RUNS} parts compressed with other checkpoints")
    passages = db.scalar(
        select(Run.rate)
        .where(Run.kind == RunKind.COMPRESS, Run.rate > 0)
        .order_by(Run.created_at.desc())
        .limit(1)
    )
    if passages and tokens_per_passage:
        return Estimate(passages * tokens_per_passage, "the last compression of new documents")
    return Estimate(None, UNKNOWN)


def rebuild_seconds(db: Session, passages: int) -> Estimate:
    """How long making a lexical index of so many passages takes, by the last one that was made."""
    last = db.execute(
        select(
            Run.result["indexed"].as_integer().label("passages"),
            Run.result["index_seconds"].as_float().label("seconds"),
        )
        .where(
            Run.kind == RunKind.RECOMPRESS,
            Run.status == RunStatus.SUCCEEDED,
            Run.result["indexed"].as_integer() > 0,
            Run.result["index_seconds"].as_float() > 0,
        )
        .order_by(Run.finished_at.desc())
        .limit(1)
    ).one_or_none()
    if last is None:
        return Estimate(None, UNKNOWN)
    rate = last.passages / last.seconds
    basis = f"{rate:,.0f} passages a second: the last index that was made"
    return Estimate(round(passages / rate, 1), basis)


def _counts(collection: UUID, checkpoint: Checkpoint, damaged: Sequence[UUID]) -> Any:
    """Passages and tokens by reason, and by whether a latent has to be made."""
    own = aliased(Latent)
    limit = checkpoint.config.get("doc_max_length")
    broken = and_(own.passage_id.is_not(None), ~sound(own))
    found = or_(broken, among(damaged)) if damaged else broken
    none = own.passage_id.is_(None)
    reason = case(
        (Document.status == DocumentStatus.PENDING, Stale.TEXT.value),
        (found, Stale.DAMAGED.value),
        (and_(none, exists().where(Latent.passage_id == Passage.id)), Stale.FINGERPRINT.value),
        (none, Stale.MISSING.value),
        else_="",
    )
    long = Passage.tokens > limit if limit else false()
    each = (
        select(
            reason.label("reason"),
            or_(none, broken).label("lacks"),
            long.label("long"),
            Passage.tokens.label("tokens"),
        )
        .select_from(Passage)
        .join(Document, Document.id == Passage.document_id)
        .outerjoin(
            own,
            and_(own.passage_id == Passage.id, own.fingerprint == checkpoint.fingerprint),
        )
        .where(Passage.collection_id == collection)
        .subquery()
    )
    return select(
        each.c.reason,
        each.c.lacks,
        func.count().label("passages"),
        func.sum(each.c.tokens).label("tokens"),
        func.count().filter(each.c.long).label("long"),
        func.coalesce(func.sum(each.c.tokens).filter(each.c.long), 0).label("long_tokens"),
    ).group_by(each.c.reason, each.c.lacks)


def _bytes(
    db: Session,
    collection: UUID,
    checkpoint: Checkpoint,
    passages: int,
    tokens: float,
    form: LatentForm,
) -> Estimate:
    """Blocks times their length: as measured, else rows x width x form."""
    some = select(Latent.block, Latent.width, Latent.fingerprint)
    some = some.join(Passage, Passage.id == Latent.passage_id)
    some = some.where(Passage.collection_id == collection)
    own = some.where(Latent.fingerprint == checkpoint.fingerprint).limit(SAMPLE).subquery()
    mean = db.scalar(select(func.avg(func.octet_length(own.c.block))))
    if mean:
        basis = f"{float(mean):,.0f} bytes a block, as those of this checkpoint that are here"
        return Estimate(round(float(mean) * passages), basis)
    width = db.scalar(select(some.limit(1).subquery().c.width))
    rows = _rows(checkpoint.config, tokens)
    if not width or not rows:
        return Estimate(None, UNKNOWN)
    block = rows * (width + SCALE_BYTES if form is LatentForm.INT8 else width * 2)
    basis = f"{rows:.3g} rows by the checkpoint's configuration, {width} wide as the latents here"
    return Estimate(round(block * passages), f"{basis}, {form.value}")


def _rows(config: Mapping[str, Any], tokens: float) -> float | None:
    """Rows of a mean passage's block; None where the configuration does not tell."""
    rate, longest = config.get("compr_rate"), config.get("doc_max_length")
    if not rate or not longest:
        return None
    if config.get("kind") == "pooled":
        return max(1.0, float(tokens) / float(rate))
    return float(longest // rate)


def _seconds(db: Session, fingerprint: str, tokens: int, mean: float) -> Estimate:
    if not tokens:
        return Estimate(0.0, "nothing to make")
    found = speed(db, fingerprint, mean)
    if found.value is None:
        return found
    basis = f"{found.value:,.0f} tokens a second: {found.basis}"
    return Estimate(round(tokens / found.value, 1), basis)


def _part_speed(db: Session, fingerprint: str | None) -> float | None:
    told = Run.result
    recent = (
        select(
            told["tokens"].as_integer().label("tokens"),
            told["seconds"].as_float().label("seconds"),
        )
        .where(
            Run.kind == RunKind.RECOMPRESS_PART,
            Run.status == RunStatus.SUCCEEDED,
            told["tokens"].as_integer() > 0,
        )
        .order_by(Run.finished_at.desc())
        .limit(RUNS)
    )
    if fingerprint is not None:
        recent = recent.where(told["fingerprint"].as_string() == fingerprint)
    rows = recent.subquery()
    tokens, seconds = db.execute(select(func.sum(rows.c.tokens), func.sum(rows.c.seconds))).one()
    return float(tokens) / float(seconds) if tokens and seconds else None
