"""The record: every row that cannot be rebuilt, and the derived ones that follow from it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from clara.db.base import Base, Created, Key, Moment
from clara.types import Fate, Fusion, LatentForm, Mode, Rerank


def _enum(kind: type[StrEnum], name: str) -> Enum:
    """Stored as its value in a text column with a named check: adding a value is one migration."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


class DocumentStatus(StrEnum):
    """How far a document has come."""

    PENDING = "pending"
    """Accepted and stored; not searchable yet."""
    SEARCHABLE = "searchable"
    """Split and in the lexical and dense index; answered from text until its latents are there."""
    INDEXED = "indexed"
    """Every passage also has its latent for the collection's checkpoint."""
    FAILED = "failed"
    """Cannot be indexed; `error` says why."""


class RunKind(StrEnum):
    """What a run does."""

    INGEST = "ingest"
    """Make documents searchable."""
    COMPRESS = "compress"
    """Make the latents that a collection lacks; at most one active run per collection."""
    QUERY = "query"
    """Answer one question."""
    PURGE = "purge"
    """Take deleted passages out of the indexes."""
    TRAIN = "train"
    """One stage of training, from its data to a registered checkpoint."""
    REGISTER = "register"
    """Look through a checkpoint's folder and write its row."""
    RECOMPRESS = "recompress"
    """Bring a collection's latents up to a checkpoint: plan, parts, gate, switch."""
    RECOMPRESS_PART = "recompress_part"
    """A few minutes of a recompression; its child."""
    NIGHT = "night"
    """One nightly round over all collections, whose recompressions are its children."""


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    """Committed; waiting for a worker."""
    LEASED = "leased"
    """A worker has it, and gets ready: it loads a model, or waits for its turn."""
    RUNNING = "running"
    """Work is being done: by the worker that holds its lease, or, without one, by its children."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Tried as often as allowed, or an error that trying again cannot help."""
    CANCELLED = "cancelled"
    """Stopped by its user."""


HELD = (RunStatus.LEASED, RunStatus.RUNNING)
"""A worker may have it in hand."""

ACTIVE = (RunStatus.QUEUED, *HELD)
"""It has not ended."""


class GenerationStatus(StrEnum):
    """What a generation is good for."""

    BUILDING = "building"
    """Its latents are being made, beside the active one."""
    ACTIVE = "active"
    """Questions are answered from it."""
    KEPT = "kept"
    """It was active, and can be again at once: its latents are still there."""
    DROPPED = "dropped"
    """Given up, refused by the gate, or older than the ones that are kept; its latents go."""


class Collection(Base):
    """Documents searched together."""

    __tablename__ = "collection"
    id: Mapped[Key]
    name: Mapped[str] = mapped_column(Text, unique=True)
    """Lower-case letters, digits, `-` and `_`; part of addresses."""
    description: Mapped[str] = mapped_column(Text, default="")
    replaced: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """Grows with every commit that puts passages in the place of others: a question that finds it
    changed looks again."""
    held: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it stays at its generation whatever is promoted: a rollback holds it, a
    recompression that was asked for lets it go."""
    unsettled: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the status of its documents may still be that of the generation before: set with a
    switch to other latents, and cleared once every document was looked at."""
    lexical_number: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """Largest number that a lexical index of it has had."""
    lexical_building: Mapped[int | None]
    """Number of one that is built beside the one that is searched: what is written goes to both."""
    created_at: Mapped[Created]


class Generation(Base):
    """One complete derived state of a collection, for one checkpoint.

    Its latents are those of its fingerprint, so two generations of one fingerprint share them.
    """

    __tablename__ = "generation"
    __table_args__ = (
        UniqueConstraint("collection_id", "number"),
        Index(
            "uq_generation_active",
            "collection_id",
            unique=True,
            postgresql_where=text("status = 'active'"),
        ),
        Index(
            "uq_generation_building",
            "collection_id",
            unique=True,
            postgresql_where=text("status = 'building'"),
        ),
    )
    id: Mapped[Key]
    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collection.id", ondelete="CASCADE"))
    number: Mapped[int]
    """From 1, within its collection."""
    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoint.id"))
    fingerprint: Mapped[str] = mapped_column(Text)
    """Of its latents."""
    status: Mapped[GenerationStatus] = mapped_column(_enum(GenerationStatus, "status"))
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("run.id", ondelete="SET NULL"))
    """The recompression that built it; none for a collection's first."""
    gate: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """What the recall gate measured before the switch."""
    created_at: Mapped[Created]
    activated_at: Mapped[Moment | None]
    """When it became the active one last."""


class Document(Base):
    """A text a user gave us; everything below it can be rebuilt from it."""

    __tablename__ = "document"
    __table_args__ = (
        UniqueConstraint("collection_id", "external_id"),
        Index("ix_document_collection_id_created_at_id", "collection_id", "created_at", "id"),
        Index("ix_document_collection_id_status", "collection_id", "status"),
        Index("ix_document_collection_id_content_hash", "collection_id", "content_hash"),
    )
    id: Mapped[Key]
    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collection.id", ondelete="CASCADE"))
    external_id: Mapped[str] = mapped_column(Text)
    """The caller's own name for it; where none was given, `sha256:` and the content hash."""
    title: Mapped[str] = mapped_column(Text, default="")
    text: Mapped[str] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(Text)
    """SHA-256 of title, text and metadata, in hex: equal means nothing to do."""
    version: Mapped[int] = mapped_column(default=1, server_default="1")
    """Grows each time the text is written; passages of two versions share no id."""
    source: Mapped[str | None] = mapped_column(Text)
    """Where it came from, such as a path or an address."""
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB, default=dict)
    status: Mapped[DocumentStatus] = mapped_column(
        _enum(DocumentStatus, "status"), default=DocumentStatus.PENDING
    )
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[Created]
    updated_at: Mapped[Created]
    """When the text was last written."""
    searchable_at: Mapped[Moment | None]
    indexed_at: Mapped[Moment | None]


class Passage(Base):
    """A span of one document, small enough for the compressor.

    The id follows from document, version and span, so that indexing twice writes the same rows. It
    keeps the words and the metadata it was made from: a document that is written again has new ones
    at once, and its passages are searched until those of the new text take their place.
    """

    __tablename__ = "passage"
    __table_args__ = (
        UniqueConstraint("document_id", "start"),
        CheckConstraint('start >= 0 AND "end" > start', name="span"),
        Index("ix_passage_collection_id", "collection_id"),
        Index(
            "ix_passage_metadata",
            "metadata",
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
        ),
    )
    id: Mapped[Key]
    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collection.id", ondelete="CASCADE"))
    document_id: Mapped[UUID] = mapped_column(ForeignKey("document.id", ondelete="CASCADE"))
    start: Mapped[int]
    """First character in document.text, counted from 0."""
    end: Mapped[int]
    """One past the last character."""
    tokens: Mapped[int]
    """Length of what the compressor reads (title line and passage) in tokens."""
    title: Mapped[str] = mapped_column(Text, default="", server_default="")
    """Of the document."""
    text: Mapped[str] = mapped_column(Text)
    """The words of the span."""
    metadata_: Mapped[dict[str, Any]] = mapped_column(
        "metadata", JSONB, default=dict, server_default="{}"
    )
    """Of the document."""


class Latent(Base):
    """One passage's latent block, made by the compressor of one fingerprint."""

    __tablename__ = "latent"
    passage_id: Mapped[UUID] = mapped_column(
        ForeignKey("passage.id", ondelete="CASCADE"), primary_key=True
    )
    fingerprint: Mapped[str] = mapped_column(Text, primary_key=True)
    block: Mapped[bytes] = mapped_column(LargeBinary)
    """Little-endian, row by row: `rows` x `width`; in front of int8 a float32 scale per row."""
    form: Mapped[LatentForm] = mapped_column(
        _enum(LatentForm, "form"), default=LatentForm.BF16, server_default=LatentForm.BF16.value
    )
    """What a number of the block is."""
    rows: Mapped[int]
    """Vectors in the block (memory tokens)."""
    width: Mapped[int]
    """Numbers per vector (hidden size)."""
    checksum: Mapped[int] = mapped_column(BigInteger)
    """CRC-32 of `block`."""
    fidelity: Mapped[float | None]
    """Share of the passage's numbers and names that the text told from this block keeps, where an
    audit looked."""
    serve_as_text: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the fidelity is too low to answer from the block: mode `auto` reads the words."""
    created_at: Mapped[Created]


class DenseEntry(Base):
    """The log every worker's FAISS index follows: one row per passage and encoder.

    A row written again, or whose vector is removed, gets a new `seq`. Rows of one collection
    become visible in its order, since writers hold a lock per collection until they commit: a
    reader that has applied all rows up to a `seq` misses none.
    """

    __tablename__ = "dense_entry"
    __table_args__ = (
        UniqueConstraint("collection_id", "passage_id", "encoder"),
        Index("ix_dense_entry_collection_id_encoder_seq", "collection_id", "encoder", "seq"),
    )
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    collection_id: Mapped[UUID]
    """No foreign key: a removal outlives the collection it is about."""
    passage_id: Mapped[UUID]
    encoder: Mapped[str] = mapped_column(Text)
    """Name of what made the vector; vectors of two encoders are never compared."""
    vector: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Little-endian float16, length one; empty for a removal."""


class Checkpoint(Base):
    """One immutable set of weights with its configuration."""

    __tablename__ = "checkpoint"
    __table_args__ = (
        Index(
            "uq_checkpoint_active", "active", unique=True, postgresql_where=text("active")
        ),  # one at most
    )
    id: Mapped[Key]
    name: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text)
    """Hash of everything that decides a latent, in the dtype of whoever loaded it last."""
    weights_hash: Mapped[str] = mapped_column(Text, unique=True)
    """Hash of all of it, generator and query reasoner included."""
    base: Mapped[str] = mapped_column(Text)
    trained: Mapped[bool]
    """False for a checkpoint made from its base alone, whose latents answer nothing."""
    config: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """Rate, lengths, adapter rank, stage."""
    path: Mapped[str | None] = mapped_column(Text)
    """Folder or Hub name of its weights; empty where there are none, as of an untrained one."""
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("run.id", ondelete="SET NULL"))
    """The training it came out of."""
    scores: Mapped[dict[str, Any]] = mapped_column(
        JSONB, default=dict, server_default=text("'{}'::jsonb")
    )
    """Numbers by set, as `clara evaluate --json` writes them."""
    gate: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """What the gate said last, refusals included."""
    active: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether workers load it where CLARA_CHECKPOINT is not set."""
    promoted_at: Mapped[Moment | None]
    """When it became active last."""
    created_at: Mapped[Created]


class Run(Base):
    """One recorded piece of work. The row is the truth; the message on the queue is a hint."""

    __tablename__ = "run"
    __table_args__ = (
        Index("ix_run_status_queued_at", "status", "queued_at"),
        Index("ix_run_created_at_id", "created_at", "id"),
        Index("ix_run_collection_id_created_at", "collection_id", "created_at"),
        Index(
            "uq_run_active_compress",
            "collection_id",
            unique=True,
            postgresql_where=text(
                "kind = 'compress' AND status IN ('queued', 'leased', 'running')"
            ),
        ),
        Index(
            "uq_run_active_recompress",
            "collection_id",
            unique=True,
            postgresql_where=text(
                "kind = 'recompress' AND status IN ('queued', 'leased', 'running')"
            ),
        ),
        Index("ix_run_parent_id", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
    )
    id: Mapped[Key]
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    """The run it is a part of, which goes on once all its children have ended."""
    kind: Mapped[RunKind] = mapped_column(_enum(RunKind, "kind"))
    status: Mapped[RunStatus] = mapped_column(_enum(RunStatus, "status"), default=RunStatus.QUEUED)
    collection_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("collection.id", ondelete="SET NULL")
    )
    inputs: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    done: Mapped[int] = mapped_column(default=0)
    """Progress, in the unit of the kind: documents, passages, questions or steps."""
    total: Mapped[int] = mapped_column(default=0)
    rate: Mapped[float | None]
    """Units a second, as of the last minute of work."""
    phase: Mapped[str] = mapped_column(Text, default="", server_default=text("''"))
    """What is being done, where a kind has several parts."""
    details: Mapped[dict[str, Any]] = mapped_column(
        JSONB, default=dict, server_default=text("'{}'::jsonb")
    )
    """What a kind tells of its progress beside `done` and `total`."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Times a worker has started it without a later success or a planned pause."""
    lease: Mapped[UUID | None]
    """Token of the worker that holds it; every later write of that worker must show it."""
    lease_until: Mapped[Moment | None]
    timings: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    """Milliseconds by phase."""
    created_at: Mapped[Created]
    queued_at: Mapped[Created]
    """When it was due last: at its creation, at a pause, after a failed attempt."""
    sent_at: Mapped[Created]
    """When a message about it was last handed to the broker."""
    started_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]


class Night(Base):
    """One tick of a schedule: however many beats there are, it is worked off once."""

    __tablename__ = "night"
    __table_args__ = (UniqueConstraint("schedule", "tick"),)
    id: Mapped[Key]
    schedule: Mapped[str] = mapped_column(Text)
    """Cron expression and time zone."""
    tick: Mapped[Moment]
    """When it was due."""
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("run.id", ondelete="SET NULL"))
    report: Mapped[dict[str, Any]] = mapped_column(
        JSONB, default=dict, server_default=text("'{}'::jsonb")
    )
    """By collection: what was stale, what was done, what remains."""
    created_at: Mapped[Created]
    finished_at: Mapped[Moment | None]


class Question(Base):
    """A question as it was asked."""

    __tablename__ = "question"
    id: Mapped[Key]
    collection_id: Mapped[UUID] = mapped_column(
        ForeignKey("collection.id", ondelete="CASCADE"), index=True
    )
    run_id: Mapped[UUID] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), unique=True)
    text: Mapped[str] = mapped_column(Text)
    mode: Mapped[Mode] = mapped_column(_enum(Mode, "mode"))
    """As asked for."""
    top_k: Mapped[int]
    max_answer_tokens: Mapped[int]
    filters: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, default=list, server_default="[]")
    """What the metadata of a passage must fulfil, all of it."""
    fusion: Mapped[Fusion] = mapped_column(
        _enum(Fusion, "fusion"), default=Fusion.UNION, server_default="union"
    )
    rerank: Mapped[Rerank | None] = mapped_column(_enum(Rerank, "rerank"))
    """As asked for; none is what the checkpoint asks for."""
    explain: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether its candidates are kept."""
    search_only: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Found and ranked, but not answered; the candidates are its result."""
    created_at: Mapped[Created]


class Answer(Base):
    """What came back; its citations say what it was built on."""

    __tablename__ = "answer"
    question_id: Mapped[UUID] = mapped_column(
        ForeignKey("question.id", ondelete="CASCADE"), primary_key=True
    )
    text: Mapped[str] = mapped_column(Text)
    mode: Mapped[Mode] = mapped_column(_enum(Mode, "mode"))
    """As answered: latent or text, never auto."""
    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoint.id"))
    generation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("generation.id", ondelete="SET NULL"), index=True
    )
    """What its latents were of; one generation for all of them."""
    reranked_by: Mapped[str] = mapped_column(Text)
    """A `Rerank`: what there was to rank by may be less than was asked for."""
    notices: Mapped[list[str]] = mapped_column(JSONB, default=list)
    """What a reader must know, such as that the checkpoint is untrained."""
    degraded: Mapped[list[str]] = mapped_column(JSONB, default=list)
    """Retrievers that did not answer."""
    timings: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    """Milliseconds: queue, retrieval, rerank, first_token, total."""
    created_at: Mapped[Created]


class Citation(Base):
    """A passage the answer was built on.

    Keeps the passage's words, since the document may be replaced later; deleting the document
    deletes them too.
    """

    __tablename__ = "citation"
    __table_args__ = (UniqueConstraint("question_id", "rank"),)
    id: Mapped[Key]
    question_id: Mapped[UUID] = mapped_column(ForeignKey("answer.question_id", ondelete="CASCADE"))
    rank: Mapped[int]
    """Position in what the generator read, from 1."""
    document_id: Mapped[UUID] = mapped_column(
        ForeignKey("document.id", ondelete="CASCADE"), index=True
    )
    passage_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("passage.id", ondelete="SET NULL"), index=True
    )
    start: Mapped[int]
    """Span of the passage in the document as it was then."""
    end: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    """The passage's words."""
    evidence_start: Mapped[int | None]
    """Span of the evidence sentence in the document as it was then."""
    evidence_end: Mapped[int | None]
    score: Mapped[float]
    """What it was ranked by: cosine in [-1, 1] of latents, or fused ranks in [0, 1]."""
    lexical: Mapped[float | None]
    """BM25 score and rank, where the lexical search returned it."""
    lexical_rank: Mapped[int | None]
    dense: Mapped[float | None]
    """Cosine and rank, where the dense search returned it."""
    dense_rank: Mapped[int | None]


class Candidate(Base):
    """A passage that was found for a question, read or not; kept where the question asks for it.

    The words are those of the passage, so that deleting a document deletes them here too.
    """

    __tablename__ = "candidate"
    __table_args__ = (UniqueConstraint("question_id", "rank"),)
    id: Mapped[Key]
    question_id: Mapped[UUID] = mapped_column(ForeignKey("question.id", ondelete="CASCADE"))
    rank: Mapped[int]
    """From 1, by score; those without one follow in the order they were found."""
    document_id: Mapped[UUID] = mapped_column(
        ForeignKey("document.id", ondelete="CASCADE"), index=True
    )
    passage_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("passage.id", ondelete="SET NULL"), index=True
    )
    start: Mapped[int]
    """Span of the passage in the document as it was then."""
    end: Mapped[int]
    fate: Mapped[Fate] = mapped_column(_enum(Fate, "fate"))
    score: Mapped[float | None]
    """What it was ranked by, as a citation's."""
    lexical: Mapped[float | None]
    """BM25 score and rank, where the lexical search returned it."""
    lexical_rank: Mapped[int | None]
    dense: Mapped[float | None]
    """Cosine and rank, where the dense search returned it."""
    dense_rank: Mapped[int | None]
    cosine: Mapped[float | None]
    """Of the sentence encoder, for every candidate, where it had a voice in the ranking."""
    latent: Mapped[float | None]
    """Cosine of latents, where they had one."""


def utc(moment: datetime | None) -> str | None:
    """ISO 8601, for JSON; None stays None."""
    return moment.isoformat() if moment else None
