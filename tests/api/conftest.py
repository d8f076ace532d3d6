"""The app on real servers, and small limits so that tests can pass them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import func, select

from api.app import create_app
from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, Question, Run
from clara.embedded import client_url
from clara.settings import Settings
from clara.texts import printable
from tests.factories import make_collection
from workers.app import QUEUES

Rows = Callable[[], dict[str, int]]
Queued = Callable[[str], list[tuple[str, list[Any]]]]


@pytest.fixture
def config(database_url: str, broker_url: str, tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=broker_url,
        home=tmp_path,
        max_body_bytes=200_000,
        max_file_bytes=50_000,
        max_documents_per_request=5,
        max_document_chars=2_000,
        max_question_chars=200,
        max_question_tokens=20,
    )


@pytest.fixture
def app(config: Settings) -> FastAPI:
    return create_app(config)


@pytest.fixture
def client(app: FastAPI, queued: Queued) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@pytest.fixture
def queued(broker_url: str) -> Iterator[Queued]:
    """What lies on a queue: task names and arguments, oldest first."""
    with redis.Redis.from_url(client_url(broker_url)) as broker:
        broker.delete(*QUEUES)

        def look(queue: str) -> list[tuple[str, list[Any]]]:
            messages = [json.loads(raw) for raw in reversed(broker.lrange(queue, 0, -1))]
            return [
                (one["headers"]["task"], json.loads(base64.b64decode(one["body"]))[0])
                for one in messages
            ]

        yield look


@pytest.fixture
def rows(db: OpenDb) -> Rows:
    """How many rows there are, by table."""

    def count() -> dict[str, int]:
        with db() as session:
            return {
                table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
                for table in (Collection, Document, Question, Run)
            }

    return count


@pytest.fixture
def papers(db: OpenDb) -> Collection:
    """An empty collection named `papers`."""
    with db.begin() as session:
        return make_collection(session, "papers")


def assert_problem(
    response: Response,
    status: int,
    code: str,
    *,
    field: str | None = None,
    limit: float | str | None = None,
) -> dict[str, Any]:
    """A complete problem, and the values it must name."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:clara:problem:{code}"
    assert problem["status"] == status
    assert problem["instance"] == printable(response.request.url.path)
    assert problem["detail"]
    assert problem["title"]
    assert problem["remedy"]
    assert problem.get("field") == field
    assert problem.get("limit") == limit
    return problem
