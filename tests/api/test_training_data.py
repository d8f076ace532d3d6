"""Files of training records over HTTP: streamed, whole or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from api.routes.training_data import upload
from clara.settings import Settings
from tests.api.conftest import Queued, assert_problem

DATA = "/v1/trainings/data"


def kept(config: Settings) -> dict[str, bytes]:
    """Every file of the folder, hidden ones included."""
    folder = config.training_files
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_an_uploaded_file_is_kept_and_listed(client: TestClient, config: Settings) -> None:
    assert client.get(DATA).json() == {"files": []}
    made = client.put(f"{DATA}/b.jsonl", content=b'{"a": 1}\n')
    assert made.status_code == 201
    assert (made.json()["name"], made.json()["bytes"]) == ("b.jsonl", 9)
    client.put(f"{DATA}/a.jsonl.gz", content=b"\x1f\x8b")
    assert [file["name"] for file in client.get(DATA).json()["files"]] == ["a.jsonl.gz", "b.jsonl"]
    assert kept(config) == {"a.jsonl.gz": b"\x1f\x8b", "b.jsonl": b'{"a": 1}\n'}


def test_a_file_of_the_same_name_is_replaced_by_another_file(
    client: TestClient, config: Settings, tmp_path: Path
) -> None:
    client.put(f"{DATA}/a.jsonl", content=b"first")
    os.link(config.training_files / "a.jsonl", tmp_path / "in use")
    client.put(f"{DATA}/a.jsonl", content=b"second")
    assert kept(config) == {"a.jsonl": b"second"}
    assert (tmp_path / "in use").read_bytes() == b"first"


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "a.jsonl.bz2",
        ".jsonl",
        ".a.jsonl",
        "-a.jsonl",
        "a b.jsonl",
        "%00.jsonl",
        "..%5Ca.jsonl",
        "é.jsonl",
        "a" * 101 + ".jsonl",
        "a.jsonl%0A",
    ],
)
def test_a_name_that_could_be_anything_else_is_refused(
    client: TestClient, config: Settings, name: str
) -> None:
    response = client.put(f"{DATA}/{name}", content=b"x")
    assert response.status_code == 415
    assert response.json()["field"] == "name"
    assert kept(config) == {}


@pytest.mark.parametrize("path", ["../a.jsonl", "..%2Fa.jsonl", "sub/a.jsonl", "%2Fetc%2Fa.jsonl"])
def test_a_path_leads_nowhere(client: TestClient, config: Settings, path: str) -> None:
    assert client.put(f"{DATA}/{path}", content=b"x").status_code in (404, 405, 415)
    assert not list(config.home.rglob("a.jsonl"))


@pytest.mark.parametrize("chunked", [True, False])
def test_a_file_over_its_limit_leaves_nothing(config: Settings, chunked: bool) -> None:
    small = config.model_copy(update={"max_training_bytes": 300_000})
    with TestClient(create_app(small), raise_server_exceptions=False) as client:

        def blocks(count: int) -> Iterator[bytes]:
            yield from [b"a" * 1000] * count

        def send(count: int) -> Any:
            content = blocks(count) if chunked else b"a" * 1000 * count
            return client.put(f"{DATA}/a.jsonl", content=content)

        assert_problem(send(301), 413, "body-too-large", field="", limit=300_000)
        assert kept(config) == {}
        assert send(300).status_code == 201  # over the limit of other bodies
        assert len(kept(config)["a.jsonl"]) == 300_000


def test_a_body_that_is_cut_off_leaves_what_was_there(app: FastAPI, config: Settings) -> None:
    with TestClient(app) as client:
        client.put(f"{DATA}/a.jsonl", content=b"whole")
    messages = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def cut_off() -> None:
        from starlette.requests import Request

        async def receive() -> Any:
            return messages.pop(0)

        request = Request({"type": "http", "method": "PUT", "headers": []}, receive)
        with pytest.raises(Exception, match="cut off"):
            await upload(request, config, "a.jsonl")

    asyncio.run(cut_off())
    assert kept(config) == {"a.jsonl": b"whole"}


def test_the_folder_may_be_another_one(config: Settings, tmp_path: Path, queued: Queued) -> None:
    elsewhere = config.model_copy(update={"training_data": tmp_path / "elsewhere"})
    with TestClient(create_app(elsewhere)) as client:
        assert client.put(f"{DATA}/a.jsonl", content=b"x").status_code == 201
    assert (tmp_path / "elsewhere" / "a.jsonl").read_bytes() == b"x"
