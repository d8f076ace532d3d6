"""Questions as a client sees them: answer, citations, candidates."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import schemas
from clara.db import tables
from clara.db.connect import OpenDb
from clara.db.tables import (
    Answer,
    Checkpoint,
    Collection,
    Document,
    Generation,
    Passage,
    Question,
    Run,
    RunStatus,
)
from clara.errors import (
    ClaraError,
    DatabaseUnavailable,
    EngineClosed,
    IndexUnavailable,
    UnknownQuestion,
)

AWAY: dict[str, type[ClaraError]] = {
    "index-unavailable": IndexUnavailable,
    "database-unavailable": DatabaseUnavailable,
    "engine-closed": EngineClosed,
}
"""Errors of a run that say that a server was away, by code."""


def read_question(open_db: OpenDb, question_id: UUID) -> schemas.Question:
    """A question and, once there, its answer with the passages it was built on.

    Raises:
        UnknownQuestion: there is none of that id.
    """
    statement = (
        select(Question, Run, Collection.name, Answer, Checkpoint, Generation.number)
        .join(Run, Run.id == Question.run_id)
        .join(Collection, Collection.id == Question.collection_id)
        .outerjoin(Answer, Answer.question_id == Question.id)
        .outerjoin(Checkpoint, Checkpoint.id == Answer.checkpoint_id)
        .outerjoin(Generation, Generation.id == Answer.generation_id)
        .where(Question.id == question_id)
    )
    with open_db() as db:
        row = db.execute(statement).one_or_none()
        if row is None:
            raise _unknown(question_id)
        question, run, collection, answer, checkpoint, generation = row
        return schemas.Question(
            id=question.id,
            run_id=run.id,
            collection=collection,
            question=question.text,
            status=run.status,
            mode_requested=question.mode,
            filters=question.filters,
            fusion=question.fusion,
            rerank=question.rerank,
            search_only=question.search_only,
            error=schemas.public(run.error),
            answer=_answer(db, answer, checkpoint, generation) if answer else None,
            explanation=_explanation(db, question, run, answer),
        )


def run_of(open_db: OpenDb, question_id: UUID) -> UUID:
    """The run that answers a question.

    Raises:
        UnknownQuestion: there is none of that id.
    """
    with open_db() as db:
        found = db.scalar(select(Question.run_id).where(Question.id == question_id))
    if found is None:
        raise _unknown(question_id)
    return found


def _unknown(question_id: UUID) -> UnknownQuestion:
    return UnknownQuestion(
        f"no question has the id {question_id}",
        field="question_id",
        remedy="It may have gone with its collection; ask again.",
    )


def refuse_where_away(question: schemas.Question) -> None:
    """Say to whoever waited for it that a server was away.

    Raises:
        IndexUnavailable, DatabaseUnavailable, EngineClosed: the run failed with that.
    """
    error = question.error or {}
    if question.status is RunStatus.FAILED and (kind := AWAY.get(error.get("code", ""))):
        raise kind(error["message"], remedy=error.get("remedy") or "Try again in a moment.")


def _answer(
    db: Session, answer: Answer, checkpoint: Checkpoint, generation: int | None
) -> schemas.Answer:
    citations = db.execute(
        select(tables.Citation, Document.external_id, Document.title, Document.source)
        .join(Document, Document.id == tables.Citation.document_id)
        .where(tables.Citation.question_id == answer.question_id)
        .order_by(tables.Citation.rank)
    )
    return schemas.Answer(
        text=answer.text,
        mode=answer.mode,
        reranked_by=answer.reranked_by,
        checkpoint=schemas.AnswerCheckpoint(
            name=checkpoint.name, fingerprint=checkpoint.fingerprint, trained=checkpoint.trained
        ),
        generation=generation,
        notices=answer.notices,
        degraded=answer.degraded,
        timings=answer.timings,
        citations=[_citation(*row) for row in citations],
    )


def _citation(
    citation: tables.Citation, external_id: str, title: str, source: str | None
) -> schemas.Citation:
    return schemas.Citation(
        passage=schemas.CitedPassage(
            id=citation.passage_id, start=citation.start, end=citation.end, text=citation.text
        ),
        evidence=_evidence(citation),
        score=citation.score,
        **_common(citation, external_id, title, source),
    )


def _evidence(citation: tables.Citation) -> schemas.Evidence | None:
    start, end = citation.evidence_start, citation.evidence_end
    if start is None or end is None:
        return None
    text = citation.text[start - citation.start : end - citation.start]
    return schemas.Evidence(start=start, end=end, text=text)


def _explanation(
    db: Session, question: Question, run: Run, answer: Answer | None
) -> schemas.Explanation | None:
    """Of a search from its run, of an answer from the answer."""
    if run.status is not RunStatus.SUCCEEDED or not (question.explain or question.search_only):
        return None
    candidates = db.execute(
        select(
            tables.Candidate,
            Passage.text,
            Document.external_id,
            Document.title,
            Document.source,
        )
        .join(Document, Document.id == tables.Candidate.document_id)
        .outerjoin(Passage, Passage.id == tables.Candidate.passage_id)
        .where(tables.Candidate.question_id == question.id)
        .order_by(tables.Candidate.rank)
    )
    result = run.result or {}
    return schemas.Explanation(
        reranked_by=answer.reranked_by if answer else result["reranked_by"],
        degraded=answer.degraded if answer else result["degraded"],
        timings=answer.timings if answer else run.timings,
        candidates=[_candidate(*row) for row in candidates],
    )


def _candidate(
    found: tables.Candidate, text: str | None, external_id: str, title: str, source: str | None
) -> schemas.Candidate:
    return schemas.Candidate(
        fate=found.fate,
        score=found.score,
        passage=schemas.FoundPassage(
            id=found.passage_id, start=found.start, end=found.end, text=text
        ),
        cosine=found.cosine,
        latent=found.latent,
        **_common(found, external_id, title, source),
    )


def _common(
    row: tables.Citation | tables.Candidate, external_id: str, title: str, source: str | None
) -> dict[str, Any]:
    """Of which document it is, by whom it was found, and where."""
    ranks = {"lexical": row.lexical_rank, "dense": row.dense_rank}
    return {
        "rank": row.rank,
        "document_id": row.document_id,
        "external_id": external_id,
        "title": title,
        "source": source,
        "found_by": [name for name, rank in ranks.items() if rank is not None],
        "lexical": row.lexical,
        "lexical_rank": row.lexical_rank,
        "dense": row.dense,
        "dense_rank": row.dense_rank,
    }
