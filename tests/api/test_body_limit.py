"""Bodies over the limit, against a real server: memory stays flat and the answer arrives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest

from tests.conftest import with_database

LIMIT = 2**20
LARGE = 200 * 2**20
BLOCK = b"a" * 2**18


class Server:
    """A uvicorn of its own process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.address = f"http://127.0.0.1:{port}"

    def memory(self) -> int:
        """Bytes resident now."""
        return psutil.Process(self.process.pid).memory_info().rss


@pytest.fixture(scope="module")
def server(
    postgres_url: str,
    template_database: str,
    broker_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """One server for this file, with a database of its own that holds the collection `papers`."""
    name = f"limit_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "CLARA_DATABASE_URL": with_database(postgres_url, name),
        "CLARA_REDIS_URL": broker_url,
        "CLARA_HOME": str(tmp_path_factory.mktemp("home")),
        "CLARA_MAX_BODY_BYTES": str(LIMIT),
    }
    command = [sys.executable, "-m", "uvicorn", "api.app:app", "--port", str(port)]
    with subprocess.Popen([*command, "--log-level", "error"], env=environment) as process:
        server = Server(process, port)
        for _ in range(200):
            try:
                if httpx.get(f"{server.address}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        httpx.post(f"{server.address}/v1/collections", json={"name": "papers"})
        yield server
        process.terminate()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'


def blocks(start: bytes) -> Iterator[bytes]:
    yield start
    for _ in range(LARGE // len(BLOCK)):
        yield BLOCK


def runs(server: Server) -> list[object]:
    found: list[object] = httpx.get(f"{server.address}/v1/runs").json()["runs"]
    return found


def assert_too_large(response: httpx.Response) -> None:
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "urn:clara:problem:body-too-large"
    assert problem["limit"] == LIMIT
    assert problem["field"] == ""
    assert problem["remedy"]


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
@pytest.mark.parametrize(
    ("path", "content_type", "start"),
    [
        ("/v1/collections/papers/documents", "application/json", b""),
        ("/v1/questions", "application/json", b""),
        ("/v1/collections/papers/files", "multipart/form-data; boundary=x", PART),
    ],
)
def test_200_megabytes_are_refused_and_never_held_in_memory(
    server: Server, path: str, content_type: str, start: bytes, declared: bool
) -> None:
    before, memory = runs(server), server.memory()
    headers = {"content-type": content_type}
    if declared:
        headers["content-length"] = str(len(start) + LARGE)
    response = httpx.post(server.address + path, content=blocks(start), headers=headers, timeout=60)
    assert_too_large(response)
    assert server.memory() - memory < 50 * 2**20
    assert runs(server) == before
    assert httpx.get(f"{server.address}/healthz").status_code == 200


def test_a_client_that_waits_for_permission_sends_nothing(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/questions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: 209715200\r\n\r\n"
        )
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_client_that_only_reads_at_the_end_gets_its_answer(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/questions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 50331648\r\n\r\n"
        )
        for _ in range(192):
            connection.sendall(BLOCK)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["limit"] == LIMIT


def test_a_body_at_the_limit_is_read(server: Server) -> None:
    start, end = b'{"documents": [{"text": "', b'"}]}'
    body = start + b"a" * (LIMIT - len(start) - len(end)) + end
    assert len(body) == LIMIT
    address = f"{server.address}/v1/collections/papers/documents"
    headers = {"content-type": "application/json"}
    for content in (body, iter([body])):
        assert httpx.post(address, content=content, headers=headers).status_code == 202
    for content in (body + b" ", iter([body, b" "])):
        assert_too_large(httpx.post(address, content=content, headers=headers))


def test_a_content_length_that_is_no_number_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/questions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400")
