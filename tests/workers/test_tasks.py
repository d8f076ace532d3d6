"""The tasks as a worker calls them, on a real record."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from uuid import uuid4

import pytest

from clara.db.connect import OpenDb
from clara.db.tables import RunKind, RunStatus
from clara.settings import Settings
from tests.workers.test_runs import queued, stored
from workers import bootstrap, tasks


@pytest.fixture(autouse=True)
def record(db: OpenDb, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything a task finds before it needs a model."""
    monkeypatch.setattr(bootstrap, "database", lambda: db)
    monkeypatch.setattr(bootstrap, "answering", lambda: SimpleNamespace(open_db=db))
    monkeypatch.setattr(tasks, "settings", Settings)
    return


def test_a_question_deleted_before_it_was_answered_ends_its_run(db: OpenDb) -> None:
    run_id = queued(db, inputs={"question_id": str(uuid4())})
    tasks.answer_question(str(run_id))
    assert stored(db, run_id).status is RunStatus.CANCELLED


def test_an_error_nobody_foresaw_is_kept_and_tried_again(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "answering", lambda: 1 / 0)
    run_id = queued(db, inputs={"question_id": str(uuid4())})
    tasks.answer_question(str(run_id))
    row = stored(db, run_id)
    assert (row.status, row.attempts) == (RunStatus.QUEUED, 1)
    assert row.error
    assert "ZeroDivisionError" in row.error["message"]


def test_a_message_delivered_again_does_nothing(db: OpenDb) -> None:
    run_id = queued(db, kind=RunKind.QUERY, status=RunStatus.SUCCEEDED)
    tasks.answer_question(str(run_id))
    assert stored(db, run_id).attempts == 0
