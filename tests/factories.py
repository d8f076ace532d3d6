"""Makes valid rows: each function adds one, with what it hangs on given by the caller."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from clara.db.tables import (
    Answer,
    Candidate,
    Checkpoint,
    Citation,
    Collection,
    Document,
    DocumentStatus,
    Generation,
    GenerationStatus,
    Latent,
    Passage,
    Question,
    Run,
    RunKind,
    RunStatus,
)
from clara.documents import content_hash
from clara.types import Fate, Mode, SourceDocument

Row = TypeVar("Row")
_numbers = count(1)


def make_collection(db: Session, name: str = "", **values: Any) -> Collection:
    """An empty collection."""
    return _add(db, Collection(name=name or f"collection-{next(_numbers)}", **values))


def make_document(
    db: Session,
    collection: Collection,
    text: str = "Copper conducts. Glass does not.",
    *,
    status: DocumentStatus = DocumentStatus.INDEXED,
    **values: Any,
) -> Document:
    """A document without passages, as far as `status` says."""
    now = datetime.now(UTC)
    searchable = status in (DocumentStatus.SEARCHABLE, DocumentStatus.INDEXED)
    given = {
        "external_id": f"document-{next(_numbers)}",
        "title": "Materials",
        "content_hash": content_hash(SourceDocument(text=text, title="Materials")),
        "searchable_at": now if searchable else None,
        "indexed_at": now if status is DocumentStatus.INDEXED else None,
    } | values
    return _add(db, Document(collection_id=collection.id, text=text, status=status, **given))


def make_passage(
    db: Session, document: Document, start: int = 0, end: int | None = None, **values: Any
) -> Passage:
    """A span of a document, by default all of it."""
    end = len(document.text) if end is None else end
    given = {
        "tokens": max(1, (end - start) // 4),
        "title": document.title,
        "text": document.text[start:end],
        "metadata_": document.metadata_,
    } | values
    return _add(
        db,
        Passage(
            collection_id=document.collection_id,
            document_id=document.id,
            start=start,
            end=end,
            **given,
        ),
    )


def make_latent(db: Session, passage: Passage, fingerprint: str = "f" * 64) -> Latent:
    """A latent block of one row of two zeros."""
    return _add(
        db,
        Latent(
            passage_id=passage.id,
            fingerprint=fingerprint,
            block=b"\0\0\0\0",
            rows=1,
            width=2,
            checksum=0x2144DF1C,
        ),
    )


def make_checkpoint(db: Session, **values: Any) -> Checkpoint:
    """A trained checkpoint."""
    given = {
        "name": "tiny",
        "fingerprint": "f" * 64,
        "weights_hash": f"{next(_numbers):064x}",
        "base": "tiny-base",
        "trained": True,
        "config": {"compression_rate": 16},
    } | values
    return _add(db, Checkpoint(**given))


def make_generation(
    db: Session,
    collection: Collection,
    checkpoint: Checkpoint,
    *,
    status: GenerationStatus = GenerationStatus.ACTIVE,
    **values: Any,
) -> Generation:
    """A collection's first generation, the active one."""
    given = {"number": 1, "fingerprint": checkpoint.fingerprint} | values
    return _add(
        db,
        Generation(
            collection_id=collection.id, checkpoint_id=checkpoint.id, status=status, **given
        ),
    )


def make_run(
    db: Session,
    kind: RunKind = RunKind.INGEST,
    status: RunStatus = RunStatus.QUEUED,
    collection: Collection | None = None,
    **values: Any,
) -> Run:
    """A run; an ingest run of no documents by default."""
    given: dict[str, Any] = {"inputs": {"documents": []} if kind is RunKind.INGEST else {}} | values
    collection_id = collection.id if collection else None
    return _add(db, Run(kind=kind, status=status, collection_id=collection_id, **given))


def make_question(
    db: Session, collection: Collection, run: Run | None = None, **values: Any
) -> Question:
    """A question with its run, queued by default."""
    run = run or make_run(db, RunKind.QUERY, collection=collection)
    given = {
        "text": "What conducts?",
        "mode": Mode.AUTO,
        "top_k": 5,
        "max_answer_tokens": 64,
    } | values
    return _add(db, Question(collection_id=collection.id, run_id=run.id, **given))


def make_answer(
    db: Session, question: Question, checkpoint: Checkpoint | None = None, **values: Any
) -> Answer:
    """An answer without citations."""
    checkpoint = checkpoint or make_checkpoint(db)
    given = {"text": "Copper.", "mode": Mode.LATENT, "reranked_by": "latent"} | values
    return _add(db, Answer(question_id=question.id, checkpoint_id=checkpoint.id, **given))


def make_citation(
    db: Session, answer: Answer, document: Document, passage: Passage, rank: int = 1, **values: Any
) -> Citation:
    """A citation of a passage, without evidence."""
    given = {"score": 0.75} | values
    return _add(
        db,
        Citation(
            question_id=answer.question_id,
            rank=rank,
            document_id=document.id,
            passage_id=passage.id,
            start=passage.start,
            end=passage.end,
            text=document.text[passage.start : passage.end],
            **given,
        ),
    )


def make_candidate(
    db: Session, question: Question, passage: Passage, rank: int = 1, **values: Any
) -> Candidate:
    """A passage that was found and read."""
    given = {"fate": Fate.READ, "score": 0.75} | values
    return _add(
        db,
        Candidate(
            question_id=question.id,
            rank=rank,
            document_id=passage.document_id,
            passage_id=passage.id,
            start=passage.start,
            end=passage.end,
            **given,
        ),
    )


def _add(db: Session, row: Row) -> Row:
    db.add(row)
    db.flush()
    return row
