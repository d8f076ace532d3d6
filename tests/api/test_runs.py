"""Runs over HTTP."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from api.routes import runs as routes
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
from tests.api.conftest import Queued, assert_problem
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
            phase="compressing",
            rate=2.5,
            details={"plan": 1},
        )
    found = client.get(f"/v1/runs/{run.id}").json()
    assert found["progress"] == {
        "done": 3,
        "total": 8,
        "phase": "compressing",
        "rate": 2.5,
        "seconds_left": 2.0,
    }
    assert (found["details"], found["children"], found["parent_id"]) == ({"plan": 1}, None, None)
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


@pytest.mark.parametrize(
    "query", ["kind=x", "status=x", "after=x", "limit=0", "colection=x", "code=%00", "parent=x"]
)
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
        response, 409, "run-not-cancellable", field="run_id", limit="queued, leased, running"
    )
    assert f"is {status}" in problem["detail"]
    with db() as session:
        assert session.get_one(Run, run.id).status is status


@pytest.mark.parametrize("status", ACTIVE)
def test_a_purge_cannot_be_cancelled(client: TestClient, db: OpenDb, status: RunStatus) -> None:
    with db.begin() as session:
        run = make_run(session, RunKind.PURGE, status)
    response = client.post(f"/v1/runs/{run.id}/cancel")
    assert_problem(
        response, 409, "run-not-cancellable", field="run_id", limit="queued, leased, running"
    )


def test_an_unknown_run_is_not_found(client: TestClient) -> None:
    for response in (
        client.get(f"/v1/runs/{uuid4()}?wait=30"),
        client.post(f"/v1/runs/{uuid4()}/cancel"),
        client.post(f"/v1/runs/{uuid4()}/retry"),
        client.get(f"/v1/runs/{uuid4()}/traceback"),
    ):
        assert_problem(response, 404, "unknown-run", field="run_id")


def test_the_traceback_of_a_run_is_a_page_of_its_own(client: TestClient, db: OpenDb) -> None:
    error = {"code": "unexpected", "message": "KeyError: 1", "traceback": "File x, line 3"}
    with db.begin() as session:
        failed = make_run(session, RunKind.QUERY, RunStatus.FAILED, error=error)
        fine = make_run(session, RunKind.QUERY)
    for run, told in [(failed, "File x, line 3"), (fine, None)]:
        found = client.get(f"/v1/runs/{run.id}/traceback").json()
        assert found == {"run_id": str(run.id), "traceback": told}


def test_a_run_tells_of_its_children(client: TestClient, db: OpenDb, papers: Collection) -> None:
    with db.begin() as session:
        whole = make_run(session, RunKind.RECOMPRESS, RunStatus.RUNNING, papers)
        parts = [
            make_run(session, RunKind.RECOMPRESS_PART, status, papers, parent_id=whole.id, **values)
            for status, values in [
                (RunStatus.SUCCEEDED, {"done": 10, "total": 10, "rate": 9.0}),
                (RunStatus.RUNNING, {"done": 4, "total": 10, "rate": 2.0}),
                (RunStatus.QUEUED, {"total": 10}),
                (RunStatus.QUEUED, {"total": 10}),
            ]
        ]
    found = client.get(f"/v1/runs/{whole.id}").json()["children"]
    assert found["by_status"] == {"succeeded": 1, "running": 1, "queued": 2}
    assert found["progress"] == {
        "done": 14,
        "total": 40,
        "phase": "",
        "rate": 2.0,
        "seconds_left": 13.0,
    }
    listed = client.get(f"/v1/runs?parent={whole.id}").json()["runs"]
    assert [one["id"] for one in listed] == [str(part.id) for part in reversed(parts)]
    assert {one["parent_id"] for one in listed} == {str(whole.id)}
    assert [one["id"] for one in client.get("/v1/runs").json()["runs"]] == [str(whole.id)]
    assert len(client.get("/v1/runs?kind=recompress_part").json()["runs"]) == 4


def test_cancelling_a_whole_cancels_its_parts_and_a_part_names_its_whole(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        whole = make_run(session, RunKind.RECOMPRESS, RunStatus.RUNNING, papers)
        part = make_run(session, RunKind.RECOMPRESS_PART, parent_id=whole.id)
    refused = client.post(f"/v1/runs/{part.id}/cancel")
    problem = assert_problem(
        refused, 409, "run-not-cancellable", field="run_id", limit="queued, leased, running"
    )
    assert str(whole.id) in problem["detail"]
    cancelled = client.post(f"/v1/runs/{whole.id}/cancel").json()
    assert (cancelled["status"], cancelled["children"]["by_status"]) == (
        "cancelled",
        {"cancelled": 1},
    )


def test_cancelling_the_last_child_wakes_its_parent(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        night = make_run(session, RunKind.NIGHT, RunStatus.RUNNING)
        child = make_run(session, RunKind.RECOMPRESS, collection=papers, parent_id=night.id)
    client.post(f"/v1/runs/{child.id}/cancel")
    assert client.get(f"/v1/runs/{night.id}").json()["status"] == "queued"


FAILED = {
    "attempts": 3,
    "error": {"code": "out-of-memory", "message": "no"},
    "finished_at": datetime(2026, 3, 4, 12, tzinfo=UTC),
}


def failed(db: OpenDb, kind: RunKind = RunKind.REGISTER, **values: Any) -> str:
    with db.begin() as session:
        return str(make_run(session, kind, RunStatus.FAILED, **FAILED | values).id)


def test_what_was_given_up_is_listed_by_its_error(client: TestClient, db: OpenDb) -> None:
    wanted = failed(db)
    failed(db, error={"code": "damaged-file", "message": "no"})
    found = client.get("/v1/runs?status=failed&code=out-of-memory").json()["runs"]
    assert [one["id"] for one in found] == [wanted]


def test_a_failed_run_is_retried_and_its_message_sent(
    client: TestClient, db: OpenDb, queued: Queued
) -> None:
    run_id = failed(db)
    response = client.post(f"/v1/runs/{run_id}/retry")
    found = response.json()
    assert response.status_code == 202
    assert (found["id"], found["status"], found["attempts"], found["error"]) == (
        run_id,
        "queued",
        0,
        None,
    )
    assert queued("compress") == [("register_checkpoint", [run_id])]
    problem = assert_problem(
        client.post(f"/v1/runs/{run_id}/retry"),
        409,
        "run-not-retryable",
        field="run_id",
        limit="failed, cancelled",
    )
    assert run_id in problem["detail"]
    assert len(queued("compress")) == 1


def test_failed_runs_are_retried_by_filter(
    client: TestClient, db: OpenDb, papers: Collection, queued: Queued
) -> None:
    wanted = failed(db, RunKind.COMPRESS, collection=papers)
    for values in (
        {"collection": None},
        {"collection": papers, "error": {"code": "damaged-file", "message": "no"}},
        {"collection": papers, "finished_at": datetime(2026, 3, 3, tzinfo=UTC)},
    ):
        failed(db, RunKind.COMPRESS, **values)
    failed(db, RunKind.REGISTER, collection=papers)
    body = {
        "kind": "compress",
        "collection": "papers",
        "code": "out-of-memory",
        "since": "2026-03-04T13:00:00+01:00",
    }
    response = client.post("/v1/runs/retry", json=body)
    assert response.status_code == 202
    assert response.json() == {"queued": 1, "refused": 0, "reasons": [], "next": None}
    assert queued("compress") == [("compress_collection", [wanted])]


def test_all_failed_runs_are_retried_in_pages_past_those_that_are_refused(
    client: TestClient, db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "AT_ONCE", 2)
    failed(db)
    refused = [failed(db, RunKind.COMPRESS) for _ in range(3)]  # of no collection
    pages: list[dict[str, Any]] = []
    body: dict[str, Any] = {}
    while not pages or body["after"]:
        pages.append(client.post("/v1/runs/retry", json=body).json())
        body["after"] = pages[-1]["next"]
    assert [(page["queued"], page["refused"]) for page in pages] == [(0, 2), (1, 1)]
    told = [one for page in pages for one in page["reasons"]]
    assert [one["run_id"] for one in told] == refused[::-1]
    assert all("deleted" in one["detail"] for one in told)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "x"}, "/kind"),
        ({"since": "yesterday"}, "/since"),
        ({"since": "2026-03-04T13:00:00"}, "/since"),
        ({"code": "a\0"}, "/code"),
        ({"colection": "papers"}, "/colection"),
    ],
)
def test_a_retry_of_what_cannot_be_named_is_refused(
    client: TestClient, db: OpenDb, body: dict[str, Any], field: str
) -> None:
    run_id = failed(db)
    response = client.post("/v1/runs/retry", json=body)
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "failed"


def test_a_retry_in_an_unknown_collection_is_not_found(client: TestClient) -> None:
    response = client.post("/v1/runs/retry", json={"collection": "nobody"})
    assert_problem(response, 404, "unknown-collection", field="collection")


def test_checkpoints_are_listed_newest_first(client: TestClient, db: OpenDb) -> None:
    with db.begin() as session:
        old = make_checkpoint(session, name="old", trained=False)
        new = make_checkpoint(session, name="new")
    found = client.get("/v1/checkpoints").json()["checkpoints"]
    assert [one["id"] for one in found] == [str(new.id), str(old.id)]
    assert found[1]["trained"] is False
    assert found[0]["config"] == {"compression_rate": 16}
