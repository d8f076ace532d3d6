"""Questions over HTTP."""

from __future__ import annotations

import threading
import time
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, text

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Question, Run, RunKind, RunStatus
from clara.settings import Settings
from clara.types import Mode
from tests.api.conftest import Queued, Rows, assert_problem
from tests.factories import (
    make_answer,
    make_checkpoint,
    make_citation,
    make_document,
    make_generation,
    make_passage,
    make_question,
    make_run,
)

ASKED = {"collection": "papers", "question": "What conducts?"}


def test_a_question_is_stored_with_its_run_and_sent(
    client: TestClient, db: OpenDb, papers: Collection, queued: Queued, config: Settings
) -> None:
    asked = client.post("/v1/questions", json=ASKED)
    assert asked.status_code == 202
    with db() as session:
        question = session.get_one(Question, UUID(asked.json()["id"]))
        run = session.get_one(Run, UUID(asked.json()["run_id"]))
        assert question.run_id == run.id
        assert question.text == "What conducts?"
        assert question.mode is config.answer_mode
        assert (question.top_k, question.max_answer_tokens) == (5, 64)
        assert (run.kind, run.status) == (RunKind.QUERY, RunStatus.QUEUED)
        assert run.inputs == {"question_id": str(question.id)}
        assert run.collection_id == papers.id
    assert queued("query") == [("answer_question", [str(run.id)])]


def test_a_question_takes_its_own_options(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    options = {"mode": "text", "top_k": 20, "max_answer_tokens": 4_096}
    asked = client.post("/v1/questions", json=ASKED | options)
    with db() as session:
        question = session.get_one(Question, UUID(asked.json()["id"]))
        assert (question.mode, question.top_k, question.max_answer_tokens) == (Mode.TEXT, 20, 4_096)


def test_the_longest_question_is_accepted(client: TestClient, papers: Collection) -> None:
    question = "\U0001f50b" * 40
    assert len(question.encode()) == 160
    assert client.post("/v1/questions", json=ASKED | {"question": question}).status_code == 202


def test_a_question_without_an_answer_yet_says_so(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        question = make_question(session, papers)
    assert client.get(f"/v1/questions/{question.id}").json() == {
        "id": str(question.id),
        "run_id": str(question.run_id),
        "collection": "papers",
        "question": "What conducts?",
        "status": "queued",
        "mode_requested": "auto",
        "filters": [],
        "fusion": "union",
        "rerank": None,
        "search_only": False,
        "error": None,
        "answer": None,
        "explanation": None,
    }


def test_a_failed_question_tells_its_error_without_a_traceback(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    error = {"code": "question-too-long", "message": "600 tokens", "traceback": "secret"}
    with db.begin() as session:
        run = make_run(session, RunKind.QUERY, RunStatus.FAILED, papers, error=error)
        question = make_question(session, papers, run)
    found = client.get(f"/v1/questions/{question.id}").json()
    assert found["status"] == "failed"
    assert found["error"] == {"code": "question-too-long", "message": "600 tokens"}


def test_an_answer_comes_with_its_citations_in_three_queries(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    words = "Glass does not. Copper conducts."
    with db.begin() as session:
        run = make_run(session, RunKind.QUERY, RunStatus.SUCCEEDED, papers)
        question = make_question(session, papers, run)
        checkpoint = make_checkpoint(session, trained=False)
        answer = make_answer(
            session,
            question,
            checkpoint,
            mode=Mode.TEXT,
            reranked_by="fusion",
            notices=["The checkpoint is untrained."],
            degraded=["lexical"],
            timings={"total": 12.5},
            generation_id=make_generation(session, papers, checkpoint, number=3).id,
        )
        document = make_document(session, papers, words, source="a.txt")
        last = make_passage(session, document, 16, 32)
        first = make_passage(session, document, 0, 16)
        make_citation(session, answer, document, first, rank=2, dense=0.5, dense_rank=1)
        make_citation(
            session,
            answer,
            document,
            last,
            rank=1,
            evidence_start=16,
            evidence_end=31,
            lexical=7.5,
            lexical_rank=3,
        )
    with db.begin() as session:
        session.delete(session.merge(first))  # a passage may go; its words stay
    statements: list[str] = []
    engine = client.app.state.open_db.kw["bind"]  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    found = client.get(f"/v1/questions/{question.id}").json()
    assert len(statements) <= 3, statements
    assert found["status"] == "succeeded"
    assert found["answer"] == {
        "text": "Copper.",
        "mode": "text",
        "reranked_by": "fusion",
        "checkpoint": {"name": "tiny", "fingerprint": "f" * 64, "trained": False},
        "generation": 3,
        "notices": ["The checkpoint is untrained."],
        "degraded": ["lexical"],
        "timings": {"total": 12.5},
        "citations": [
            {
                "rank": 1,
                "document_id": str(document.id),
                "external_id": document.external_id,
                "title": "Materials",
                "source": "a.txt",
                "passage": {
                    "id": str(last.id),
                    "start": 16,
                    "end": 32,
                    "text": "Copper conducts.",
                },
                "evidence": {"start": 16, "end": 31, "text": "Copper conducts"},
                "score": 0.75,
                "found_by": ["lexical"],
                "lexical": 7.5,
                "lexical_rank": 3,
                "dense": None,
                "dense_rank": None,
            },
            {
                "rank": 2,
                "document_id": str(document.id),
                "external_id": document.external_id,
                "title": "Materials",
                "source": "a.txt",
                "passage": {"id": None, "start": 0, "end": 16, "text": "Glass does not. "},
                "evidence": None,
                "score": 0.75,
                "found_by": ["dense"],
                "lexical": None,
                "lexical_rank": None,
                "dense": 0.5,
                "dense_rank": 1,
            },
        ],
    }


def test_an_answer_of_an_earlier_release_names_no_generation(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        question = make_question(session, papers)
        make_answer(session, question)
    assert client.get(f"/v1/questions/{question.id}").json()["answer"]["generation"] is None


def test_waiting_returns_as_soon_as_the_answer_is_there(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        question = make_question(session, papers)

    def answer() -> None:
        with db.begin() as session:
            make_answer(session, question)
            session.get_one(Run, question.run_id).status = RunStatus.SUCCEEDED

    timer = threading.Timer(0.4, answer)
    timer.start()
    started = time.monotonic()
    found = client.get(f"/v1/questions/{question.id}?wait=20").json()
    waited = time.monotonic() - started
    timer.join()
    assert found["answer"]["text"] == "Copper."
    assert 0.3 < waited < 5


def test_waiting_ends_with_the_time_given(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        question = make_question(session, papers)
    started = time.monotonic()
    assert client.get(f"/v1/questions/{question.id}?wait=0.3").json()["status"] == "queued"
    assert 0.3 <= time.monotonic() - started < 5


def test_waiting_holds_no_transaction_open(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        question = make_question(session, papers)
    waiter = threading.Thread(target=client.get, args=(f"/v1/questions/{question.id}?wait=1.5",))
    waiter.start()
    open_transactions = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND now() - xact_start > interval '200 ms'"
    )
    with db() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        seen = []
        while waiter.is_alive():
            seen.append(session.scalar(open_transactions))
            time.sleep(0.1)
    waiter.join()
    assert seen
    assert set(seen) == {0}


@pytest.mark.parametrize(
    ("wait", "limit"), [("-1", 0), ("31", 30), ("nan", None), ("inf", None), ("x", None)]
)
def test_a_wait_that_cannot_be_is_refused(
    client: TestClient, wait: str, limit: float | None
) -> None:
    for path in ("questions", "runs"):
        response = client.get(f"/v1/{path}/{uuid4()}?wait={wait}")
        assert response.status_code == 422
        assert response.json()["field"] == "wait"
        assert response.json().get("limit") == limit


def test_an_unknown_question_is_not_found_at_once(client: TestClient, rows: Rows) -> None:
    started = time.monotonic()
    response = client.get(f"/v1/questions/{uuid4()}?wait=30")
    assert_problem(response, 404, "unknown-question", field="question_id")
    assert time.monotonic() - started < 5
