"""Questions: ask, and read the answer."""

from __future__ import annotations

from uuid import UUID, uuid4

from fastapi import APIRouter, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import checks, schemas
from api.deps import Config, Db, collection_named
from api.strict_body import StrictRoute
from api.waiting import Wait, until_ended
from clara.db.connect import OpenDb
from clara.db.tables import (
    ACTIVE,
    Answer,
    Checkpoint,
    Citation,
    Collection,
    Document,
    Question,
    Run,
    RunKind,
)
from clara.errors import UnknownQuestion
from workers.enqueue import queue_run, transaction

router = APIRouter(prefix="/v1/questions", tags=["questions"], route_class=StrictRoute)


@router.post(
    "",
    status_code=202,
    summary="Ask a question",
    responses=schemas.problems(400, 404, 413, 415, 422),
)
def ask(open_db: Db, config: Config, body: schemas.NewQuestion) -> schemas.QueuedQuestion:
    """Queue a question; read the answer at its id."""
    question = Question(
        id=uuid4(),
        text=checks.question(body, config),
        mode=body.mode or config.answer_mode,
        top_k=body.top_k or config.top_k,
        max_answer_tokens=body.max_answer_tokens or config.max_answer_tokens,
    )
    with transaction(open_db) as (db, send):
        question.collection_id = collection_named(db, body.collection, lock="keep").id
        run = queue_run(
            db,
            send,
            RunKind.QUERY,
            collection_id=question.collection_id,
            inputs={"question_id": str(question.id)},
            total=1,
        )
        question.run_id = run.id
        db.add(question)
    return schemas.QueuedQuestion(id=question.id, run_id=run.id)


@router.get("/{question_id}", summary="Read a question", responses=schemas.problems(404, 422))
async def read(
    request: Request, open_db: Db, question_id: UUID, wait: Wait = 0.0
) -> schemas.Question:
    """A question and, once there, its answer with the passages it was built on."""
    found = await run_in_threadpool(_read, open_db, question_id)
    if not wait or found.status not in ACTIVE:
        return found
    await until_ended(request, open_db, found.run_id, wait)
    return await run_in_threadpool(_read, open_db, question_id)


def _read(open_db: OpenDb, question_id: UUID) -> schemas.Question:
    statement = (
        select(Question, Run, Collection.name, Answer, Checkpoint)
        .join(Run, Run.id == Question.run_id)
        .join(Collection, Collection.id == Question.collection_id)
        .outerjoin(Answer, Answer.question_id == Question.id)
        .outerjoin(Checkpoint, Checkpoint.id == Answer.checkpoint_id)
        .where(Question.id == question_id)
    )
    with open_db() as db:
        row = db.execute(statement).one_or_none()
        if row is None:
            raise UnknownQuestion(
                f"no question has the id {question_id}",
                field="question_id",
                remedy="It may have gone with its collection; ask again.",
            )
        question, run, collection, answer, checkpoint = row
        return schemas.Question(
            id=question.id,
            run_id=run.id,
            collection=collection,
            question=question.text,
            status=run.status,
            mode_requested=question.mode,
            error=schemas.public(run.error),
            answer=_answer(db, answer, checkpoint) if answer else None,
        )


def _answer(db: Session, answer: Answer, checkpoint: Checkpoint) -> schemas.Answer:
    citations = db.execute(
        select(Citation, Document.external_id, Document.title, Document.source)
        .join(Document, Document.id == Citation.document_id)
        .where(Citation.question_id == answer.question_id)
        .order_by(Citation.rank)
    )
    return schemas.Answer(
        text=answer.text,
        mode=answer.mode,
        reranked_by=answer.reranked_by,
        checkpoint=schemas.AnswerCheckpoint(
            name=checkpoint.name, fingerprint=checkpoint.fingerprint, trained=checkpoint.trained
        ),
        notices=answer.notices,
        degraded=answer.degraded,
        timings=answer.timings,
        citations=[_citation(*row) for row in citations],
    )


def _citation(
    citation: Citation, external_id: str, title: str, source: str | None
) -> schemas.Citation:
    return schemas.Citation(
        rank=citation.rank,
        document_id=citation.document_id,
        external_id=external_id,
        title=title,
        source=source,
        passage=schemas.CitedPassage(
            id=citation.passage_id, start=citation.start, end=citation.end, text=citation.text
        ),
        evidence=_evidence(citation),
        score=citation.score,
        lexical=citation.lexical,
        lexical_rank=citation.lexical_rank,
        dense=citation.dense,
        dense_rank=citation.dense_rank,
    )


def _evidence(citation: Citation) -> schemas.Evidence | None:
    start, end = citation.evidence_start, citation.evidence_end
    if start is None or end is None:
        return None
    text = citation.text[start - citation.start : end - citation.start]
    return schemas.Evidence(start=start, end=end, text=text)
