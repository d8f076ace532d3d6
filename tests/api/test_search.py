"""Searches and explanations over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Question, Run, RunKind, RunStatus
from clara.types import Fate, Fusion, Rerank
from tests.api.conftest import Queued, assert_problem
from tests.factories import (
    make_answer,
    make_candidate,
    make_document,
    make_passage,
    make_question,
    make_run,
)

SEARCH = "/v1/collections/papers/search"
BODY = {"question": "What conducts?"}
AWAY = {"code": "index-unavailable", "message": "neither index answers", "remedy": "Start one."}


def test_a_search_is_a_question_without_an_answer(
    client: TestClient, db: OpenDb, papers: Collection, queued: Queued
) -> None:
    options = {"top_k": 3, "fusion": "rrf", "rerank": "both"}
    found = client.post(f"{SEARCH}?wait=0", json=BODY | options)
    assert found.status_code == 202
    assert (found.json()["status"], found.json()["search_only"]) == ("queued", True)
    with db() as session:
        question = session.get_one(Question, UUID(found.json()["id"]))
        run = session.get_one(Run, question.run_id)
    assert (question.top_k, question.fusion, question.rerank) == (3, Fusion.RRF, Rerank.BOTH)
    assert run.kind is RunKind.QUERY
    assert queued("query") == [("answer_question", [str(run.id)])]


def finish(db: OpenDb, work: Callable[[Any, Question], None]) -> threading.Thread:
    """A worker that deals with the first question there is."""

    def run() -> None:
        while True:
            with db.begin() as session:
                if question := session.scalar(select(Question)):
                    work(session, question)
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_search_comes_back_with_every_candidate_and_its_fate(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        document = make_document(session, papers, "Copper conducts.", source="a.txt")
        passage = make_passage(session, document)

    def work(session: Any, question: Question) -> None:
        voices = {"lexical": 7.5, "lexical_rank": 1, "cosine": 0.25, "latent": 0.5}
        make_candidate(session, question, passage, **voices)
        run = session.get_one(Run, question.run_id)
        run.status = RunStatus.SUCCEEDED
        run.result = {"reranked_by": "fusion", "degraded": ["dense"]}
        run.timings = {"total": 3.5}

    worker = finish(db, work)
    found = client.post(f"{SEARCH}?wait=20", json=BODY)
    worker.join()
    assert found.status_code == 200
    assert found.json()["answer"] is None
    assert found.json()["explanation"] == {
        "reranked_by": "fusion",
        "degraded": ["dense"],
        "timings": {"total": 3.5},
        "candidates": [
            {
                "rank": 1,
                "fate": "read",
                "score": 0.75,
                "document_id": str(document.id),
                "external_id": document.external_id,
                "title": "Materials",
                "source": "a.txt",
                "passage": {"id": str(passage.id), "start": 0, "end": 16, "text": document.text},
                "found_by": ["lexical"],
                "lexical": 7.5,
                "lexical_rank": 1,
                "dense": None,
                "dense_rank": None,
                "cosine": 0.25,
                "latent": 0.5,
            }
        ],
    }


def test_an_answer_is_explained_where_that_was_asked_for(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    asked = client.post("/v1/questions", json=BODY | {"collection": "papers", "explain": True})
    with db.begin() as session:
        question = session.get_one(Question, UUID(asked.json()["id"]))
        session.get_one(Run, question.run_id).status = RunStatus.SUCCEEDED
        make_answer(session, question, reranked_by="latent", timings={"total": 2.0})
        document = make_document(session, papers)
        passage = make_passage(session, document)
        make_candidate(session, question, passage, rank=2, fate=Fate.BELOW_MIN_SCORE)
        make_candidate(session, question, make_passage(session, document, 5, 9))
        session.flush()
        session.delete(passage)  # replaced since
    found = client.get(f"/v1/questions/{question.id}").json()["explanation"]
    assert (found["reranked_by"], found["timings"]) == ("latent", {"total": 2.0})
    assert [one["fate"] for one in found["candidates"]] == ["read", "below_min_score"]
    lost = found["candidates"][1]["passage"]
    assert (lost["id"], lost["text"]) == (None, None)


def test_an_answer_is_not_explained_unasked(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        run = make_run(session, RunKind.QUERY, RunStatus.SUCCEEDED, papers)
        question = make_question(session, papers, run)
        make_answer(session, question)
    assert client.get(f"/v1/questions/{question.id}").json()["explanation"] is None


def test_without_any_index_whoever_waits_is_told_503(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    def fail(session: Any, question: Question) -> None:
        run = session.get_one(Run, question.run_id)
        run.status, run.error = RunStatus.FAILED, AWAY

    worker = finish(db, fail)
    response = client.post(f"{SEARCH}?wait=20", json=BODY)
    worker.join()
    problem = assert_problem(response, 503, "index-unavailable")
    assert problem["detail"] == "neither index answers"
    assert response.headers["retry-after"]
    with db() as session:
        question = session.scalars(select(Question)).one()
    path = f"/v1/questions/{question.id}"
    assert_problem(client.get(f"{path}?wait=1"), 503, "index-unavailable")
    row = client.get(path)
    assert (row.status_code, row.json()["status"], row.json()["error"]) == (200, "failed", AWAY)


def test_another_failure_is_read_from_the_row_even_when_waited_for(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        error = {"code": "question-too-long", "message": "600 tokens"}
        run = make_run(session, RunKind.QUERY, RunStatus.FAILED, papers, error=error)
        question = make_question(session, papers, run)
    found = client.get(f"/v1/questions/{question.id}?wait=1")
    assert (found.status_code, found.json()["error"]) == (200, error)


def test_a_search_of_an_unknown_collection_is_not_found(client: TestClient) -> None:
    response = client.post("/v1/collections/nobody/search", json=BODY)
    assert_problem(response, 404, "unknown-collection", field="collection")


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"fusion": "sum"}, "/fusion"),
        ({"rerank": "x"}, "/rerank"),
        ({"top_k": 21}, "/top_k"),
        ({"mode": "text"}, "/mode"),
    ],
)
def test_a_search_with_a_fault_is_refused(
    client: TestClient, papers: Collection, members: dict[str, Any], field: str
) -> None:
    response = client.post(SEARCH, json=BODY | members)
    assert response.status_code == 422
    assert response.json()["field"] == field
