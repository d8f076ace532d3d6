"""Runs over HTTP."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from clara.db.connect import OpenDb
from clara.db.tables import (
    ACTIVE,
    Collection,
    Document,
    DocumentStatus,
    Run,
    RunKind,
    RunStatus,
)
from clara.errors import Cancelled
from tests.api.conftest import assert_problem
from tests.factories import make_checkpoint, make_document, make_run
from workers import runs


def test_a_run_shows_its_progress_and_its_error_without_a_traceback(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    error = {"code": "index-unavailable", "message": "no answer", "traceback": "secret"}
    with db.begin() as session:
        run = make_run(
            session,
            RunKind.COMPRESS,
            RunStatus.RUNNING,
            papers,
            done=3,
            total=8,
            timings={"queue": 5},
            error=error,
            attempts=2,
            inputs={"a": 1},
            lease=uuid4(),
        )
    found = client.get(f"/v1/runs/{run.id}").json()
    assert found["progress"] == {"done": 3, "total": 8, "phase": ""}
    assert found["error"] == {"code": "index-unavailable", "message": "no answer"}
    assert (found["kind"], found["status"], found["collection"]) == (
        "compress",
        "running",
        "papers",
    )
    assert (found["timings"], found["attempts"], found["inputs"]) == ({"queue": 5}, 2, {"a": 1})
    assert "lease" not in found


def test_runs_are_listed_newest_first_in_pages(client: TestClient, db: OpenDb) -> None:
    with db.begin() as session:
        made = [str(make_run(session).id) for _ in range(5)]
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = client.get("/v1/runs", params=params).json()
        seen += [one["id"] for one in page["runs"]]
        if page["next"] is None:
            break
        params["after"] = page["next"]
    assert seen == made[::-1]


def test_runs_are_listed_by_kind_status_and_collection(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        wanted = make_run(session, RunKind.QUERY, RunStatus.FAILED, papers)
        make_run(session, RunKind.QUERY, RunStatus.FAILED)
        make_run(session, RunKind.QUERY, RunStatus.QUEUED, papers)
        make_run(session, RunKind.INGEST, RunStatus.FAILED, papers)
    (found,) = client.get("/v1/runs?kind=query&status=failed&collection=papers").json()["runs"]
    assert found["id"] == str(wanted.id)


@pytest.mark.parametrize("query", ["kind=x", "status=x", "after=x", "limit=0", "colection=x"])
def test_a_filter_that_cannot_be_is_refused(client: TestClient, query: str) -> None:
    response = client.get(f"/v1/runs?{query}")
    assert response.status_code == 422
    assert response.json()["field"] == query.split("=")[0]
    assert response.json()["remedy"]


def test_runs_of_an_unknown_collection_are_not_found(client: TestClient) -> None:
    response = client.get("/v1/runs?collection=nobody")
    assert_problem(response, 404, "unknown-collection", field="collection")


def test_waiting_for_a_run_returns_at_its_end(client: TestClient, db: OpenDb) -> None:
    with db.begin() as session:
        run = make_run(session, status=RunStatus.RUNNING)

    def end() -> None:
        with db.begin() as session:
            session.get_one(Run, run.id).status = RunStatus.FAILED

    timer = threading.Timer(0.3, end)
    timer.start()
    started = time.monotonic()
    assert client.get(f"/v1/runs/{run.id}?wait=20").json()["status"] == "failed"
    assert time.monotonic() - started < 5
    timer.join()


def test_a_queued_run_is_cancelled_and_its_documents_can_be_written_again(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    body = {"documents": [{"text": "Copper.", "external_id": "1"}]}
    written = client.post("/v1/collections/papers/documents", json=body).json()
    cancelled = client.post(f"/v1/runs/{written['run_id']}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["finished_at"]
    document_id = written["documents"][0]["id"]
    document = client.get(f"/v1/documents/{document_id}").json()
    assert (document["status"], document["error"]["code"]) == ("failed", "cancelled")
    again = client.post("/v1/collections/papers/documents", json=body).json()
    assert again["documents"][0]["outcome"] == "updated"
    assert again["run_id"]


def test_cancelling_leaves_documents_that_are_searchable_alone(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        document = make_document(session, papers)
        run = make_run(session, collection=papers, inputs={"documents": [str(document.id)]})
    assert client.post(f"/v1/runs/{run.id}/cancel").status_code == 200
    with db() as session:
        assert session.get_one(Document, document.id).status is DocumentStatus.INDEXED


def test_a_running_run_is_cancelled_and_loses_its_lease(client: TestClient, db: OpenDb) -> None:
    with db.begin() as session:
        run = make_run(session, RunKind.QUERY)
    held = runs.take(db, run.id, lease_s=30)
    assert held
    with runs.holding(db, held, lease_s=30):
        cancelled = client.post(f"/v1/runs/{run.id}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        assert held.lost.wait(10)  # long before the lease would be renewed
    with pytest.raises(Cancelled), db.begin() as session:
        runs.succeed(session, held, {}, {})
    assert client.get(f"/v1/runs/{run.id}").json()["status"] == "cancelled"


def test_of_cancelling_and_ending_one_wins(client: TestClient, db: OpenDb) -> None:
    with db.begin() as session:
        run = make_run(session, RunKind.QUERY)
    held = runs.take(db, run.id, lease_s=30)
    assert held
    with db.begin() as session:
        runs.succeed(session, held, {}, {})
    assert client.post(f"/v1/runs/{run.id}/cancel").status_code == 409
    assert client.get(f"/v1/runs/{run.id}").json()["status"] == "succeeded"


@pytest.mark.parametrize("status", [one for one in RunStatus if one not in ACTIVE])
def test_a_run_that_has_ended_cannot_be_cancelled(
    client: TestClient, db: OpenDb, status: RunStatus
) -> None:
    with db.begin() as session:
        run = make_run(session, status=status)
    response = client.post(f"/v1/runs/{run.id}/cancel")
    problem = assert_problem(
        response, 409, "run-not-cancellable", field="run_id", limit="queued, running"
    )
    assert f"is {status}" in problem["detail"]
    with db() as session:
        assert session.get_one(Run, run.id).status is status


@pytest.mark.parametrize("status", ACTIVE)
def test_a_purge_cannot_be_cancelled(client: TestClient, db: OpenDb, status: RunStatus) -> None:
    with db.begin() as session:
        run = make_run(session, RunKind.PURGE, status)
    response = client.post(f"/v1/runs/{run.id}/cancel")
    assert_problem(response, 409, "run-not-cancellable", field="run_id", limit="queued, running")


def test_an_unknown_run_is_not_found(client: TestClient) -> None:
    for response in (
        client.get(f"/v1/runs/{uuid4()}?wait=30"),
        client.post(f"/v1/runs/{uuid4()}/cancel"),
    ):
        assert_problem(response, 404, "unknown-run", field="run_id")


def test_checkpoints_are_listed_newest_first(client: TestClient, db: OpenDb) -> None:
    with db.begin() as session:
        old = make_checkpoint(session, name="old", trained=False)
        new = make_checkpoint(session, name="new")
    found = client.get("/v1/checkpoints").json()["checkpoints"]
    assert [one["id"] for one in found] == [str(new.id), str(old.id)]
    assert found[1]["trained"] is False
    assert found[0]["config"] == {"compression_rate": 16}
