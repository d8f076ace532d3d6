"""The query queue: one question, one message, one transaction for everything it leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.orm import Session

from clara.db.tables import Question
from clara.errors import Cancelled
from clara.pipeline.answer import Answered, Answering, Asked, answer_question, write_answer
from workers import runs
from workers.runs import Held


def answer(held: Held, answering: Answering) -> None:
    """Answer the question of a run, and keep answer, citations and timings."""
    asked = _asked(UUID(held.run.inputs["question_id"]), answering)
    answered = answer_question(asked, answering, stopped=held.stopped)
    with answering.open_db.begin() as db:
        answered.timings = _timings(held, answered)
        write_answer(db, asked, answered, answering.checkpoint_id)
        result = {"question_id": str(asked.id), "tokens": answered.tokens}
        runs.succeed(db, held, result, answered.timings, done=1)


def _asked(question_id: UUID, answering: Answering) -> Asked:
    with answering.open_db() as db:
        return _detached(db, question_id)


def _detached(db: Session, question_id: UUID) -> Asked:
    row = db.get(Question, question_id)
    if row is None:
        raise Cancelled(f"question {question_id} was deleted before it was answered")
    return Asked(
        id=row.id,
        collection_id=row.collection_id,
        text=row.text,
        mode=row.mode,
        top_k=row.top_k,
        max_answer_tokens=row.max_answer_tokens,
    )


def _timings(held: Held, answered: Answered) -> dict[str, float]:
    """Milliseconds; `first_token` and `total` count from the moment the question was accepted."""
    timings = runs.timings(held.run) | answered.timings
    phases = ("queue", "retrieval", "rerank", "prefill")
    total = (datetime.now(UTC) - held.run.created_at).total_seconds() * 1000
    first = sum(timings.get(phase, 0.0) for phase in phases)
    return timings | {"first_token": round(first, 1), "total": round(total, 1)}
