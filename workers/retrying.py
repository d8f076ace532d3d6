"""Runs that ended badly, tried again: one by its id, or all that a filter names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from clara.db.tables import (
    ACTIVE,
    Answer,
    Collection,
    Document,
    DocumentStatus,
    Question,
    Run,
    RunKind,
    RunStatus,
)
from clara.errors import RunNotRetryable, UnknownRun
from workers.enqueue import Send

ENDED_BADLY = (RunStatus.FAILED, RunStatus.CANCELLED)

AT_ONCE = 500
"""Runs that one request looks at; it says where the next one goes on."""

OF_A_COLLECTION = (RunKind.INGEST, RunKind.COMPRESS, RunKind.RECOMPRESS)
"""Kinds that have nothing to do once their collection is deleted."""

ONE_AT_A_TIME = (RunKind.COMPRESS, RunKind.RECOMPRESS)
"""Kinds of which a collection has one that has not ended, at most."""


def failed_with(code: str) -> Any:
    """Condition: the run's error is of that code."""
    return Run.error["code"].astext == code


def retry(db: Session, send: Send, run_id: UUID) -> Run:
    """Queue a failed or cancelled run again, with all its attempts, as if just asked for.

    Args:
        db: a transaction; the run is locked until it is over.
        send: asks for its message.
        run_id: its id.
    Raises:
        UnknownRun: there is none.
        RunNotRetryable: it has not ended badly, or what it was for is done otherwise or gone.
    """
    run = db.scalar(select(Run).where(Run.id == run_id).with_for_update())
    if run is None:
        raise UnknownRun(
            f"no run has the id {run_id}", field="run_id", remedy="Look at GET /v1/runs."
        )
    _refuse_unless_ended_badly(run)
    _refuse_part(db, run)
    _refuse_without_collection(db, run)
    _prepare(db, run)
    queued = _queue(db, run)
    send(queued.kind, queued.id)
    return queued


def retry_all(
    db: Session, send: Send, ids: Sequence[UUID]
) -> tuple[list[UUID], list[tuple[UUID, RunNotRetryable]]]:
    """Queue runs again, each as `retry` does.

    Args:
        db: a transaction.
        send: asks for their messages.
        ids: of runs; AT_ONCE of them at most.
    Returns:
        ids of those that are queued, and the others with the reason.
    """
    queued: list[UUID] = []
    refused: list[tuple[UUID, RunNotRetryable]] = []
    for run_id in ids:
        try:
            with db.begin_nested():
                queued.append(retry(db, send, run_id).id)
        except RunNotRetryable as reason:
            refused.append((run_id, reason))
    return queued, refused


def _refuse_unless_ended_badly(run: Run) -> None:
    if run.status not in ENDED_BADLY:
        raise RunNotRetryable(
            f"run {run.id} is {run.status}; only what has failed or was cancelled is tried again",
            field="run_id",
            limit=", ".join(ENDED_BADLY),
            remedy="Nothing is left to do."
            if run.status is RunStatus.SUCCEEDED
            else "Wait for its end with GET /v1/runs/{run_id}?wait=30.",
        )


def _refuse_part(db: Session, run: Run) -> None:
    """A part goes with its whole, and a night with its date."""
    if run.kind is RunKind.RECOMPRESS_PART:
        raise _superseded(
            run,
            f"is a part of run {run.parent_id}",
            "Retry that run: it plans its parts anew.",
        )
    if run.kind is RunKind.NIGHT:
        raise _superseded(run, "was a night of its own date", "The next night does what remains.")
    waits = select(Run.id).where(Run.id == run.parent_id, Run.status.in_(ACTIVE))
    if run.parent_id and db.scalar(waits):
        raise _superseded(
            run,
            f"belongs to run {run.parent_id}, which has not ended",
            "Retry it when that run has ended.",
        )


def _refuse_without_collection(db: Session, run: Run) -> None:
    """Keeps the collection until the commit, too."""
    if run.kind not in OF_A_COLLECTION:
        return
    there = select(Collection.id).where(Collection.id == run.collection_id)
    if run.collection_id is None or not db.scalar(there.with_for_update(key_share=True, read=True)):
        raise _superseded(run, "was for a collection that is deleted", "Nothing is left to do.")


def _prepare(db: Session, run: Run) -> None:
    if run.kind is RunKind.INGEST:
        _prepare_ingest(db, run)
    elif run.kind is RunKind.QUERY:
        _refuse_without_question(db, run)
    elif run.kind is RunKind.RECOMPRESS:
        db.execute(delete(Run).where(Run.parent_id == run.id))  # its parts are planned anew


def _prepare_ingest(db: Session, run: Run) -> None:
    """Its documents wait again, but for those written since: they have runs of their own."""
    ids = [UUID(value) for value in run.inputs["documents"]]
    waiting = (DocumentStatus.PENDING, DocumentStatus.FAILED)
    mine = list(
        db.scalars(
            select(Document.id)
            .where(
                Document.id.in_(ids),
                Document.status.in_(waiting),
                Document.updated_at <= run.created_at,
            )
            .order_by(Document.external_id)  # as `write_documents` locks them
            .with_for_update()
        )
    )
    if not mine:
        raise _superseded(
            run,
            f"has nothing left to index: its {_documents(len(ids))} indexed, written again or "
            "deleted since",
            "Nothing is left to do.",
        )
    db.execute(
        update(Document)
        .where(Document.id.in_(mine))
        .values(status=DocumentStatus.PENDING, error=None)
    )


def _documents(count: int) -> str:
    return "document was" if count == 1 else f"{count:,} documents were"


def _refuse_without_question(db: Session, run: Run) -> None:
    question = db.scalar(select(Question.id).where(Question.run_id == run.id))
    if question is None:
        raise _superseded(run, "was for a question that is deleted", "Ask it again.")
    if db.scalar(select(Answer.question_id).where(Answer.question_id == question)):
        raise _superseded(run, "has left its answer", "Read it at GET /v1/questions/{id}.")


def _queue(db: Session, run: Run) -> Run:
    """Fails, by its unique index, where another run of the collection does the same by now."""
    now = func.clock_timestamp()
    values: dict[str, Any] = dict.fromkeys(
        ("error", "result", "rate", "lease", "lease_until", "started_at", "finished_at")
    )
    values |= {"status": RunStatus.QUEUED, "attempts": 0, "queued_at": now, "sent_at": now}
    if run.kind is not RunKind.TRAIN:  # that goes on at its last saved state
        values["done"] = 0
    if run.kind is RunKind.RECOMPRESS:
        values |= {"phase": "", "details": {}}
    again = update(Run).where(Run.id == run.id, Run.status.in_(ENDED_BADLY)).values(values)
    try:
        queued: Run = db.scalars(again.returning(Run)).one()
    except IntegrityError as error:
        if run.kind not in ONE_AT_A_TIME:
            raise
        raise _superseded(
            run,
            f"has a successor: the collection has another {run.kind} run that has not ended",
            "Wait for that one.",
        ) from error
    return queued


def _superseded(run: Run, why: str, remedy: str) -> RunNotRetryable:
    return RunNotRetryable(
        f"run {run.id} {why}", field="run_id", limit=", ".join(ENDED_BADLY), remedy=remedy
    )
