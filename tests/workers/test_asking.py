"""Questions and their runs, written together."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import event, func, select

from clara.db.connect import OpenDb
from clara.db.tables import Question, Run, RunKind, RunStatus
from clara.types import Fusion, Mode, Rerank
from tests.factories import make_collection
from workers import enqueue
from workers.asking import NewQuestion, queue_questions


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunKind, UUID]]:
    found: list[tuple[RunKind, UUID]] = []
    monkeypatch.setattr(enqueue, "send", lambda kind, run_id: not found.append((kind, run_id)))
    return found


def a_question(text: str, **options: object) -> NewQuestion:
    given = {"mode": Mode.TEXT, "top_k": 3, "max_answer_tokens": 8}
    given |= {"fusion": Fusion.RRF, "rerank": Rerank.BOTH}
    return NewQuestion(text, **given | options)  # type: ignore[arg-type]


def test_a_question_is_written_as_it_was_given(
    db: OpenDb, sent: list[tuple[RunKind, UUID]]
) -> None:
    with db.begin() as session:
        papers = make_collection(session, "papers")
    filters = [{"op": "in", "field": "tag", "values": ["ä", 1.5, True]}]
    asked = a_question('It\'s "%s" ☃\n?', filters=filters, explain=True, search_only=True)
    assert queue_questions(db, "papers", [asked])
    with db() as session:
        question = session.scalars(select(Question)).one()
        run = session.scalars(select(Run)).one()
    assert (str(question.id), str(question.run_id)) == (asked.id, asked.run_id)
    assert question.collection_id == run.collection_id == papers.id
    assert question.text == asked.text
    assert (question.mode, question.fusion) == (Mode.TEXT, Fusion.RRF)
    assert question.rerank is Rerank.BOTH
    assert (question.top_k, question.max_answer_tokens) == (3, 8)
    assert question.filters == filters
    assert (question.explain, question.search_only) == (True, True)
    assert (run.kind, run.status, run.total) == (RunKind.QUERY, RunStatus.QUEUED, 1)
    assert (run.done, run.attempts, run.phase, run.details, run.timings) == (0, 0, "", {}, {})
    assert run.inputs == {"question_id": asked.id}
    assert question.created_at
    assert run.created_at
    assert run.queued_at
    assert run.sent_at
    assert sent == [(RunKind.QUERY, run.id)]


def test_many_questions_are_one_statement(db: OpenDb, sent: list[tuple[RunKind, UUID]]) -> None:
    with db.begin() as session:
        make_collection(session, "papers")
    asked = [a_question(f"What is {number}?") for number in range(30)]
    statements: list[str] = []
    event.listen(db.kw["bind"], "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert queue_questions(db, "papers", asked)
    assert len(statements) == 1
    assert {str(run_id) for _, run_id in sent} == {one.run_id for one in asked}
    with db() as session:
        assert session.scalar(select(func.count()).select_from(Question)) == 30


def test_nothing_is_written_or_sent_where_there_is_no_such_collection(
    db: OpenDb, sent: list[tuple[RunKind, UUID]]
) -> None:
    assert not queue_questions(db, "nowhere", [a_question("What?")])
    assert not sent
    with db() as session:
        assert session.scalars(select(Run)).all() == []
