"""JSON shapes. Requests are strict: no unknown member, no string where a number belongs.

Limits that are settings, and the characters of texts, are checked in `api/checks.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, FailFast, Field

from api.deps import NAME
from api.errors import MEDIA_TYPE
from api.filters import Filters
from clara.db.tables import DocumentStatus, RunStatus
from clara.documents import Outcome
from clara.types import Fate, Fusion, Mode, Rerank

TITLE_CHARS = 300
NAME_CHARS = 1000
"""Longest `external_id` and `source`."""
METADATA_KEYS = 32


class Request(BaseModel):
    """Base of what clients send."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NewCollection(Request):
    """A collection to create."""

    name: str = Field(pattern=NAME, examples=["contracts"])
    description: str = Field(default="", max_length=1000)


class NewDocument(Request):
    """A text to make searchable."""

    text: str = Field(examples=["The lease ends on 31 March."])
    title: str = Field(default="", max_length=TITLE_CHARS)
    external_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=NAME_CHARS,
        description="Your own name for it; writing the same one again replaces the document.",
    )
    source: str | None = Field(default=None, max_length=NAME_CHARS)
    metadata: dict[str, Any] = Field(
        default_factory=dict,
        max_length=METADATA_KEYS,
        description="Strings, numbers, true and false by name.",
    )


class NewDocuments(Request):
    """Documents to write in one transaction: all of them or none."""

    documents: Annotated[list[NewDocument], FailFast()] = Field(min_length=1)


class NewQuestion(Request):
    """A question to answer from one collection."""

    collection: str
    question: str = Field(examples=["When does the lease end?"])
    mode: Mode | None = Field(
        default=None, strict=False, description="How passages are read; a setting by default."
    )
    top_k: int | None = Field(default=None, ge=1, le=20, description="Passages to read.")
    max_answer_tokens: int | None = Field(default=None, ge=1, le=4096)
    filters: Filters = Field(default_factory=list)
    fusion: Fusion | None = Field(
        default=None, strict=False, description="How two rankings become one; a setting by default."
    )
    rerank: Rerank | None = Field(
        default=None,
        strict=False,
        description="What ranks the candidates; by default a setting, else as the checkpoint asks.",
    )
    explain: bool = Field(default=False, description="Keep and show all candidates.")


class NewSearch(Request):
    """A question to find passages for, without an answer."""

    question: str = Field(examples=["lease end"])
    top_k: int | None = Field(default=None, ge=1, le=20, description="Passages an answer reads.")
    filters: Filters = Field(default_factory=list)
    fusion: Fusion | None = Field(default=None, strict=False)
    rerank: Rerank | None = Field(default=None, strict=False)


class NewCheckpoint(Request):
    """A folder of trained weights to register."""

    path: str = Field(
        max_length=NAME_CHARS, description="Absolute path on the workers' machine, or a Hub name."
    )
    base: str = Field(
        default="", max_length=NAME_CHARS, description="Its base, where the noted one is not there."
    )


class NewPromotion(Request):
    """A checkpoint that shall serve."""

    force: bool = Field(default=False, description="Whatever the gate says; takes a reason.")
    reason: str = Field(default="", max_length=1000)


class QueuedRun(BaseModel):
    """Work that a worker will do."""

    run_id: UUID


class Collection(BaseModel):
    """Documents searched together."""

    name: str
    description: str
    created_at: datetime


class DocumentCounts(BaseModel):
    """Documents by status."""

    pending: int = 0
    searchable: int = 0
    indexed: int = 0
    failed: int = 0


class CollectionDetail(Collection):
    """A collection and how much is in it."""

    documents: DocumentCounts
    passages: int
    latents: int = Field(description="Passages that have a latent of at least one checkpoint.")
    active_runs: int = Field(description="Runs that wait or work.")


class Collections(BaseModel):
    """A page of collections, by name."""

    collections: list[Collection]
    next: str | None


class Purging(BaseModel):
    """The rows are gone; these runs take them out of the indexes."""

    run_ids: list[UUID]


class WrittenDocument(BaseModel):
    """What became of one document of a request."""

    id: UUID
    external_id: str
    outcome: Outcome


class Accepted(BaseModel):
    """Documents stored; the run makes them searchable. No run where all are unchanged."""

    run_id: UUID | None
    documents: list[WrittenDocument]


class Document(BaseModel):
    """A document without its text."""

    id: UUID
    collection: str
    external_id: str
    title: str
    source: str | None
    metadata: dict[str, Any]
    status: DocumentStatus
    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    searchable_at: datetime | None
    indexed_at: datetime | None


class DocumentDetail(Document):
    """A document."""

    text: str


class Documents(BaseModel):
    """A page of documents, oldest first."""

    documents: list[Document]
    next: str | None


class Passage(BaseModel):
    """A span of a document, in characters counted from 0."""

    id: UUID
    start: int
    end: int
    tokens: int
    text: str
    has_latent: bool


class Passages(BaseModel):
    """How a document is split; empty until it is searchable."""

    document_id: UUID
    passages: list[Passage]


class QueuedQuestion(BaseModel):
    """A question that a worker will answer."""

    id: UUID
    run_id: UUID


class AnswerCheckpoint(BaseModel):
    """The weights that answered."""

    name: str
    fingerprint: str
    trained: bool


class CitedPassage(BaseModel):
    """The passage as it was when the answer was made; no id where it is gone since."""

    id: UUID | None
    start: int
    end: int
    text: str


class Evidence(BaseModel):
    """The part of the passage that supports the answer, as a span of the document."""

    start: int
    end: int
    text: str


class Citation(BaseModel):
    """A passage the answer was built on."""

    rank: int
    document_id: UUID
    external_id: str
    title: str
    source: str | None
    passage: CitedPassage
    evidence: Evidence | None
    score: float
    found_by: list[str] = Field(description="`lexical`, `dense`, or both.")
    lexical: float | None
    lexical_rank: int | None
    dense: float | None
    dense_rank: int | None


class FoundPassage(BaseModel):
    """A passage that was found; no id and words where it was replaced since."""

    id: UUID | None
    start: int
    end: int
    text: str | None


class Candidate(BaseModel):
    """A passage that was found, and what became of it."""

    rank: int
    fate: Fate
    score: float | None = Field(description="What `reranked_by` gave it.")
    document_id: UUID
    external_id: str
    title: str
    source: str | None
    passage: FoundPassage
    found_by: list[str] = Field(description="`lexical`, `dense`, or both.")
    lexical: float | None = Field(description="BM25 score.")
    lexical_rank: int | None
    dense: float | None = Field(description="Cosine of the dense index.")
    dense_rank: int | None
    cosine: float | None = Field(
        description="Exact cosine of the sentence encoder, where it had a voice in the ranking."
    )
    latent: float | None = Field(description="Cosine of latents, where they had one.")


class Explanation(BaseModel):
    """Everything that was found for a question, best first."""

    reranked_by: str
    degraded: list[str]
    timings: dict[str, Any]
    candidates: list[Candidate]


class Answer(BaseModel):
    """An answer and what it was built on."""

    text: str
    mode: Mode
    reranked_by: str
    checkpoint: AnswerCheckpoint
    generation: int | None = Field(
        description="Number of the collection's generation it was answered from, all of it."
    )
    notices: list[str]
    degraded: list[str]
    timings: dict[str, Any]
    citations: list[Citation]


class Question(BaseModel):
    """A question, how far it is, and its answer."""

    id: UUID
    run_id: UUID
    collection: str
    question: str
    status: RunStatus
    mode_requested: Mode
    filters: list[dict[str, Any]]
    fusion: Fusion
    rerank: Rerank | None = Field(description="As asked for.")
    search_only: bool
    error: dict[str, Any] | None
    answer: Answer | None
    explanation: Explanation | None = Field(description="Of a search, or where it was asked for.")


class Checkpoint(BaseModel):
    """One immutable set of weights with its configuration."""

    id: UUID
    name: str
    fingerprint: str
    weights_hash: str
    base: str
    trained: bool
    config: dict[str, Any]
    path: str | None = Field(description="Where its weights are; none of an untrained one.")
    run_id: UUID | None = Field(description="The training it came out of.")
    scores: dict[str, Any] = Field(description="Numbers by set.")
    gate: dict[str, Any] | None = Field(description="What the gate said last.")
    active: bool = Field(description="Whether it serves.")
    promoted_at: datetime | None
    created_at: datetime


class Checkpoints(BaseModel):
    """All checkpoints, newest first."""

    checkpoints: list[Checkpoint]


class Place(BaseModel):
    """What one table or index holds."""

    name: str
    entries: int
    examples: list[str] = Field(description="Ids of some passages.")


class Audit(BaseModel):
    """What is left of something deleted, place by place."""

    clean: bool = Field(description="Whether nothing is left.")
    places: list[Place]
    pending_runs: list[UUID] = Field(description="Runs that may still take it away.")


class Health(BaseModel):
    """A check that went well."""

    status: str = "ok"


class Fault(BaseModel):
    """What is wrong, where, and what to do."""

    type: str = Field(examples=["urn:clara:problem:text-too-long"])
    title: str
    detail: str
    field: str | None = Field(default=None, description="JSON pointer, or a parameter's name.")
    limit: int | float | str | None = None
    remedy: str | None = None


class Problem(Fault):
    """RFC 9457 problem details."""

    status: int
    instance: str
    errors: list[Fault] | None = Field(default=None, description="All faults, where several.")
    id: str | None = Field(default=None, description="Where to look in the log.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How a route declares the problems it may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"model": Problem, "content": content} for status in (*statuses, 500, 503)}


def public(error: dict[str, Any] | None) -> dict[str, Any] | None:
    """A kept error as a client may see it: without its traceback."""
    if error is None:
        return None
    return {name: value for name, value in error.items() if name != "traceback"}
