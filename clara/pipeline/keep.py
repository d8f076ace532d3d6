"""What a question leaves behind: the rows of its answer, its citations and its candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara.db import tables
from clara.db.tables import Answer, Citation, Document, Passage
from clara.evidence import find_evidence
from clara.pipeline.answer import Answered
from clara.pipeline.asking import Asked
from clara.pipeline.record import Read
from clara.pipeline.retrieve import Considered
from clara.types import Fate


def write_answer(
    db: Session,
    asked: Asked,
    answered: Answered,
    checkpoint_id: UUID,
    generation_id: UUID | None = None,
) -> None:
    """Insert the answer, its citations, and where asked for its candidates.

    A passage whose document was deleted meanwhile is not cited: its words are gone for good.

    Args:
        checkpoint_id: whose models answered.
        generation_id: what they answered from.
    """
    db.add(
        Answer(
            question_id=asked.id,
            text=answered.text.replace("\x00", ""),
            mode=answered.mode,
            checkpoint_id=checkpoint_id,
            generation_id=generation_id,
            reranked_by=answered.retrieved.reranked_by,
            notices=answered.notices,
            degraded=answered.retrieved.degraded,
            timings=answered.timings,
        )
    )
    db.flush()
    alive, kept = _held(db, answered.passages)
    rows = [
        _citation(rank, read, asked, answered, kept)
        for rank, read in enumerate(answered.passages, start=1)
        if read.document_id in alive
    ]
    if rows:
        db.execute(insert(Citation), rows)
    if asked.explain:
        write_candidates(db, asked, answered.retrieved.considered)


def write_candidates(db: Session, asked: Asked, considered: Sequence[Considered]) -> None:
    """Insert what was found, read or not; nothing of documents that were deleted meanwhile."""
    alive, kept = _held(db, [one.read for one in considered])
    rows = [
        _candidate(rank, one, asked, kept)
        for rank, one in enumerate(considered, start=1)
        if one.read.document_id in alive
    ]
    if rows:
        db.execute(insert(tables.Candidate), rows)


def _held(db: Session, passages: Iterable[Read]) -> tuple[set[UUID], set[UUID]]:
    """Documents and passages that are still there, and stay until the commit."""
    reads = list(passages)
    documents = {read.document_id for read in reads}
    ids = {read.candidate.passage_id for read in reads}
    alive = set(db.scalars(_share(select(Document.id).where(Document.id.in_(documents)))))
    kept = set(db.scalars(_share(select(Passage.id).where(Passage.id.in_(ids)))))
    return alive, kept


def _share(statement: Select[Any]) -> Select[Any]:
    return statement.with_for_update(read=True, key_share=True)


def _citation(
    rank: int, read: Read, asked: Asked, answered: Answered, kept: set[UUID]
) -> dict[str, Any]:
    evidence = find_evidence(read.text, answered.text, asked.text)
    return _common(rank, read, asked, kept) | {
        "text": read.text,
        "evidence_start": read.start + evidence.start if evidence else None,
        "evidence_end": read.start + evidence.end if evidence else None,
        "score": read.score,
    }


def _candidate(rank: int, one: Considered, asked: Asked, kept: set[UUID]) -> dict[str, Any]:
    return _common(rank, one.read, asked, kept) | {
        "fate": one.fate,
        "score": None if one.fate is Fate.BEYOND_CANDIDATES else one.read.score,
        "cosine": one.cosine,
        "latent": one.latent,
    }


def _common(rank: int, read: Read, asked: Asked, kept: set[UUID]) -> dict[str, Any]:
    """Which passage, by whom it was found, and where."""
    found = read.candidate
    return {
        "question_id": asked.id,
        "rank": rank,
        "document_id": read.document_id,
        "passage_id": found.passage_id if found.passage_id in kept else None,
        "start": read.start,
        "end": read.end,
        "lexical": found.lexical,
        "lexical_rank": found.lexical_rank,
        "dense": found.dense,
        "dense_rank": found.dense_rank,
    }
