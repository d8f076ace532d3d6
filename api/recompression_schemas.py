"""JSON shapes of recompressions and generations."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas import NAME_CHARS, Request
from clara.db.tables import GenerationStatus


class NewRecompression(Request):
    """A collection's latents to be brought up to a checkpoint."""

    checkpoint: str | None = Field(
        default=None,
        max_length=NAME_CHARS,
        description="Id or name; the promoted one by default, or the one that answers now.",
    )
    dry_run: bool = Field(default=False, description="Say what it would do, and do nothing.")
    gate: bool = Field(
        default=True, description="Whether a new generation must pass the recall gate to answer."
    )
    rebuild_indexes: bool = Field(
        default=False,
        description="Whether the lexical index is made anew too, beside the one that is searched.",
    )


class Estimate(BaseModel):
    """A number and what it rests on."""

    value: float | None
    basis: str


class Rebuild(BaseModel):
    """A lexical index that is made anew."""

    passages: int = Field(description="That are written to it.")
    seconds: Estimate


class RecompressionPlan(BaseModel):
    """What a recompression would do, in passages."""

    collection: str
    checkpoint_id: UUID
    checkpoint: str = Field(description="Its name.")
    fingerprint: str
    way: str = Field(
        description="nothing; followed: the latents are the same, the checkpoint takes over at "
        "once; repaired: made in place; switched: a new generation is built, and switched to."
    )
    passages: int = Field(description="Of the collection.")
    stale: dict[str, int] = Field(
        description="By reason: fingerprint, missing, damaged (by length; checksums are compared "
        "when it runs), text (documents written again and not split yet)."
    )
    too_long: int = Field(description="More than the checkpoint reads: they stay text.")
    to_make: int = Field(description="Latents to make.")
    tokens: int
    bytes: Estimate
    seconds: Estimate = Field(description="On one model worker.")
    rebuild: Rebuild | None = Field(
        description="The lexical index that is made anew; null where that was not asked for."
    )


class QueuedRecompression(BaseModel):
    """Work that a worker will do."""

    run_id: UUID


class Answering(BaseModel):
    """A generation, but for the number of its latents: a rollback does not wait for a count."""

    number: int
    status: GenerationStatus
    checkpoint_id: UUID
    checkpoint: str = Field(description="Its name.")
    fingerprint: str
    run_id: UUID | None = Field(description="The recompression that built it.")
    gate: dict[str, Any] | None = Field(description="What the recall gate measured.")
    created_at: datetime
    activated_at: datetime | None = Field(description="When it began to answer last.")


class Generation(Answering):
    """One complete set of latents of a collection, for one checkpoint."""

    latents: int = Field(description="That are stored of its fingerprint.")


class Generations(BaseModel):
    """All generations of a collection, the newest first."""

    collection: str
    held: bool = Field(description="Whether promotions and nights leave it where it is.")
    generations: list[Generation]


class NewRollback(Request):
    """An earlier generation that shall answer again."""

    to: int | None = Field(
        default=None, ge=1, description="Its number; by default the one that answered before."
    )


class RolledBack(BaseModel):
    """What answers now."""

    generation: Answering
    cancelled: UUID | None = Field(description="The recompression that this ended.")
