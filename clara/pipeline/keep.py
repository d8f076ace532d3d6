"""What a question leaves behind: the rows of its answer, its citations and its candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara.db import tables
from clara.db.base import Base
from clara.db.tables import Answer, Citation, Document, Passage
from clara.evidence import find_evidence
from clara.pipeline.answer import Answered
from clara.pipeline.asking import Asked
from clara.pipeline.considered import Considered
from clara.pipeline.record import Read, among
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
    db.execute(
        insert(Answer).values(
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
    held = _held(db, answered.passages)
    rows = [
        _citation(rank, read, asked, answered, held)
        for rank, read in enumerate(answered.passages, start=1)
        if read.document_id in held
    ]
    _insert(db, Citation, rows)
    if asked.explain:
        write_candidates(db, asked, answered.retrieved.considered)


def write_candidates(db: Session, asked: Asked, considered: Sequence[Considered]) -> None:
    """Insert what was found, read or not; nothing of documents that were deleted meanwhile."""
    held = _held(db, [one.read for one in considered])
    rows = [
        _candidate(rank, one, asked, held)
        for rank, one in enumerate(considered, start=1)
        if one.read.document_id in held
    ]
    _insert(db, tables.Candidate, rows)


def _insert(db: Session, table: type[Base], rows: list[dict[str, Any]]) -> None:
    if rows:  # without the option, rows that lack different columns are statements of their own
        db.execute(insert(table), rows, execution_options={"render_nulls": True})


def _held(db: Session, passages: Sequence[Read]) -> set[UUID]:
    """Ids of documents and passages that are still there, and stay until the commit."""
    documents = _kept(Document.id, {read.document_id for read in passages})
    ids = _kept(Passage.id, {read.candidate.passage_id for read in passages})
    return set(db.scalars(union_all(documents, ids)))


def _kept(column: Any, ids: Iterable[UUID]) -> Select[Any]:
    there = select(column).where(among(column, ids)).with_for_update(read=True, key_share=True)
    return select(there.cte())


def _citation(
    rank: int, read: Read, asked: Asked, answered: Answered, held: set[UUID]
) -> dict[str, Any]:
    evidence = find_evidence(read.text, answered.text, asked.text)
    return _common(rank, read, asked, held) | {
        "text": read.text,
        "evidence_start": read.start + evidence.start if evidence else None,
        "evidence_end": read.start + evidence.end if evidence else None,
        "score": read.score,
    }


def _candidate(rank: int, one: Considered, asked: Asked, held: set[UUID]) -> dict[str, Any]:
    return _common(rank, one.read, asked, held) | {
        "fate": one.fate,
        "score": None if one.fate is Fate.BEYOND_CANDIDATES else one.read.score,
        "cosine": one.cosine,
        "latent": one.latent,
    }


def _common(rank: int, read: Read, asked: Asked, held: set[UUID]) -> dict[str, Any]:
    """Which passage, by whom it was found, and where."""
    found = read.candidate
    return {
        "question_id": asked.id,
        "rank": rank,
        "document_id": read.document_id,
        "passage_id": found.passage_id if found.passage_id in held else None,
        "start": read.start,
        "end": read.end,
        "lexical": found.lexical,
        "lexical_rank": found.lexical_rank,
        "dense": found.dense,
        "dense_rank": found.dense_rank,
    }
