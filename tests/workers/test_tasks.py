"""The tasks as a worker calls them, on a real record."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from uuid import uuid4

import pytest

from clara.db.connect import OpenDb
from clara.db.tables import RunKind, RunStatus
from clara.errors import IndexUnavailable
from clara.settings import Settings
from tests.workers.test_runs import queued, stored
from workers import bootstrap, tasks


@pytest.fixture(autouse=True)
def record(db: OpenDb, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything a task finds before it needs a model."""
    monkeypatch.setattr(bootstrap, "database", lambda: db)
    monkeypatch.setattr(bootstrap, "loaded", lambda: SimpleNamespace())
    monkeypatch.setattr(tasks, "settings", Settings)
    return


def test_a_question_deleted_before_it_was_answered_ends_its_run(db: OpenDb) -> None:
    run_id = queued(db, inputs={"question_id": str(uuid4())})
    tasks.answer_question(str(run_id))
    assert stored(db, run_id).status is RunStatus.CANCELLED


def test_an_error_nobody_foresaw_is_kept_and_tried_again(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "loaded", lambda: 1 / 0)
    run_id = queued(db, inputs={"question_id": str(uuid4())})
    tasks.answer_question(str(run_id))
    row = stored(db, run_id)
    assert (row.status, row.attempts) == (RunStatus.QUEUED, 1)
    assert row.error
    assert "ZeroDivisionError" in row.error["message"]


def test_a_question_no_index_answers_fails_at_once(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked is waiting; other work is tried again."""

    def away() -> None:
        raise IndexUnavailable("neither index answers")

    monkeypatch.setattr(bootstrap, "loaded", away)
    monkeypatch.setattr(bootstrap, "indexings", away)
    asked = queued(db, inputs={"question_id": str(uuid4())})
    tasks.answer_question(str(asked))
    row = stored(db, asked)
    assert (row.status, row.error and row.error["code"]) == (
        RunStatus.FAILED,
        "index-unavailable",
    )
    ingested = queued(db, kind=RunKind.INGEST, inputs={"documents": []})
    tasks.ingest_documents(str(ingested))
    assert stored(db, ingested).status is RunStatus.QUEUED


def test_a_message_delivered_again_does_nothing(db: OpenDb) -> None:
    run_id = queued(db, kind=RunKind.QUERY, status=RunStatus.SUCCEEDED)
    tasks.answer_question(str(run_id))
    assert stored(db, run_id).attempts == 0
