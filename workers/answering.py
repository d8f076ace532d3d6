"""The query queue: one question, one message, one transaction for everything it leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Question
from clara.errors import Cancelled, LatentsNotReady, UnknownCollection
from clara.filters import from_json
from clara.generations import Known
from clara.pipeline.answer import Answered, answer_question
from clara.pipeline.asking import Answering, Asked
from clara.pipeline.keep import write_answer, write_candidates
from clara.pipeline.retrieve import retrieve
from workers import runs
from workers.loaded import Loaded
from workers.runs import Held


def answer(held: Held, loaded: Loaded, open_db: OpenDb) -> None:
    """Answer the question of a run, and keep answer, citations, candidates and timings.

    What answers is settled once, and the whole answer keeps to it, whatever is switched meanwhile.
    """
    asked = _asked(UUID(held.run.inputs["question_id"]), open_db)
    try:
        answering, generation = loaded.serving(asked.collection_id)
        if asked.search_only:
            _search(held, asked, answering, generation)
            return
        answered, generation = _answered(held, asked, loaded, (answering, generation))
    except UnknownCollection as error:
        raise Cancelled(f"the collection of question {asked.id} was deleted") from error
    with open_db.begin() as db:
        answered.timings = _with_first_token(_timings(held, answered.timings))
        write_answer(db, asked, answered, generation.checkpoint_id, generation.id)
        result = {"question_id": str(asked.id), "tokens": answered.tokens}
        runs.succeed(db, held, result, answered.timings, done=1)


def _answered(
    held: Held, asked: Asked, loaded: Loaded, chosen: tuple[Answering, Known]
) -> tuple[Answered, Known]:
    """The answer, from one generation.

    Where that one lacks a latent that was asked for, the active one may have it: it is waited for.
    Not where that is the one: after an update it may be answered for by another checkpoint, and
    its own loads no more.
    """
    while True:  # ends: each round is of a newer active generation
        answering, generation = chosen
        try:
            return answer_question(asked, answering, stopped=held.stopped), generation
        except LatentsNotReady:
            if loaded.generation(asked.collection_id).id == generation.id:
                raise
            chosen = loaded.active(asked.collection_id)


def _search(held: Held, asked: Asked, answering: Answering, generation: Known) -> None:
    """Find and rank as for an answer; the candidates are the result."""
    found = retrieve(asked, answering)
    result = {
        "question_id": str(asked.id),
        "candidates": len(found.considered),
        "reranked_by": found.reranked_by,
        "degraded": found.degraded,
        "generation": generation.number,
    }
    with answering.open_db.begin() as db:
        write_candidates(db, asked, found.considered)
        runs.succeed(db, held, result, _timings(held, found.timings), done=1)


def _asked(question_id: UUID, open_db: OpenDb) -> Asked:
    with open_db() as db:
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
        filters=from_json(row.filters),
        fusion=row.fusion,
        rerank=row.rerank,
        explain=row.explain,
        search_only=row.search_only,
    )


def _timings(held: Held, phases: dict[str, float]) -> dict[str, float]:
    """Milliseconds; `total` counts from the moment the question was accepted."""
    total = (datetime.now(UTC) - held.run.created_at).total_seconds() * 1000
    return runs.timings(held.run) | phases | {"total": round(total, 1)}


def _with_first_token(timings: dict[str, float]) -> dict[str, float]:
    """Counted from the same moment."""
    phases = ("queue", "retrieval", "rerank", "prefill")
    first = sum(timings.get(phase, 0.0) for phase in phases)
    return timings | {"first_token": round(first, 1)}
