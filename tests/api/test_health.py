"""Liveness, readiness, and what a client sees when a server is away."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.pool import QueuePool

from api.app import create_app
from api.routes import health
from clara.db.tables import Collection
from clara.settings import Settings
from tests.api.conftest import Rows, assert_problem

Without = Callable[..., TestClient]
NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/none"


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def without(config: Settings) -> Iterator[Without]:
    """A client of an app with other addresses."""
    with ExitStack() as stack:

        def client(**changed: str) -> TestClient:
            app = create_app(config.model_copy(update=changed))
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield client


def test_the_process_lives_without_any_server(without: Without) -> None:
    client = without(database_url=NOWHERE, redis_url="redis://127.0.0.1:1/0")
    assert client.get("/healthz").json() == {"status": "ok"}


def test_it_is_ready_when_both_servers_answer(client: TestClient) -> None:
    assert client.get("/readyz").json() == {"status": "ok"}


def test_it_is_not_ready_without_the_database(without: Without) -> None:
    response = without(database_url=NOWHERE).get("/readyz")
    assert_problem(response, 503, "database-unavailable")
    assert response.headers["retry-after"] == "5"


def test_it_is_not_ready_without_the_broker(without: Without) -> None:
    response = without(redis_url="redis://127.0.0.1:1/0").get("/readyz")
    assert_problem(response, 503, "broker-unavailable")


def test_servers_that_stay_silent_are_told_together_and_soon(
    without: Without, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_S", 0.5)
    client = without(
        database_url=f"postgresql://nobody@127.0.0.1:{silent}/none",
        redis_url=f"redis://127.0.0.1:{silent}/0",
    )
    started = time.monotonic()
    problem = assert_problem(client.get("/readyz"), 503, "database-unavailable")
    assert time.monotonic() - started < 3
    assert [fault["type"].rsplit(":", 1)[1] for fault in problem["errors"]] == [
        "database-unavailable",
        "broker-unavailable",
    ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/collections", None),
        ("GET", f"/v1/questions/{UUID(int=1)}", None),
        ("POST", "/v1/collections", {"name": "a"}),
        ("POST", "/v1/questions", {"collection": "a", "question": "b"}),
    ],
)
def test_a_database_that_is_away_is_a_problem_that_tells_no_address(
    without: Without, method: str, path: str, body: object
) -> None:
    response = without(database_url=NOWHERE).request(method, path, json=body)
    assert_problem(response, 503, "database-unavailable")
    assert response.headers["retry-after"] == "5"
    assert "127.0.0.1" not in response.text


def test_no_free_connection_is_a_problem_that_may_be_retried(config: Settings) -> None:
    app = create_app(config)
    engine = app.state.open_db.kw["bind"]
    engine.pool = QueuePool(engine.pool._creator, pool_size=1, max_overflow=0, timeout=0.1)
    with engine.connect():
        response = TestClient(app, raise_server_exceptions=False).get("/v1/collections")
    engine.dispose()
    assert_problem(response, 503, "database-unavailable")


def test_an_unexpected_error_tells_an_id_that_the_log_has_too(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr("api.routes.collections._counts", broken)
    client.post("/v1/collections", json={"name": "papers"})
    with caplog.at_level(logging.ERROR):
        response = client.get("/v1/collections/papers")
    problem = assert_problem(response, 500, "unexpected")
    assert "secret" not in response.text
    assert problem["id"] in caplog.text
    assert "a secret" in caplog.text


@pytest.mark.parametrize("away", ["refusing", "silent"])
def test_documents_are_accepted_soon_while_the_broker_is_away(
    config: Settings, papers: Collection, rows: Rows, silent: int, away: str
) -> None:
    code = (
        "import time; from fastapi.testclient import TestClient; from api.app import create_app;"
        "client = TestClient(create_app()); started = time.monotonic();"
        "body = {'documents': [{'text': 'Copper.'}]};"
        "print(client.post('/v1/collections/papers/documents', json=body).status_code);"
        "print(time.monotonic() - started)"
    )
    port = silent if away == "silent" else 1
    changed = config.model_copy(update={"redis_url": f"redis://127.0.0.1:{port}/0"})
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | changed.variables(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    status, seconds = done.stdout.split()
    assert status == "202"
    assert float(seconds) < 5
    assert rows()["run"] == 1
