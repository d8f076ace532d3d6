"""Files over HTTP: multipart in, documents out."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from api.routes import files
from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, Run
from clara.types import SourceDocument
from tests.api.conftest import Queued, Rows, assert_problem

FILES = "/v1/collections/papers/files"
HTML = b"<html><head><title>Metals</title></head><body><p>Copper conducts well.</p></body></html>"


def upload(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", file) for file in files]


def test_files_become_documents_of_one_run(
    client: TestClient, db: OpenDb, papers: Collection, queued: Queued
) -> None:
    written = client.post(
        FILES,
        files=upload(("a.txt", b"Glass does not conduct."), ("b.html", HTML)),
        data={"source_prefix": "inbox/"},
    )
    assert written.status_code == 202
    answer = written.json()
    assert [one["external_id"] for one in answer["documents"]] == ["inbox/a.txt", "inbox/b.html"]
    with db() as session:
        run = session.get_one(Run, UUID(answer["run_id"]))
        assert run.inputs == {"documents": [one["id"] for one in answer["documents"]]}
        page = session.get_one(Document, UUID(answer["documents"][1]["id"]))
        assert (page.title, page.source) == ("Metals", "inbox/b.html")
        assert "Copper conducts well." in page.text
        assert "<p>" not in page.text
    assert queued("ingest") == [("ingest_documents", [answer["run_id"]])]


def test_the_same_file_again_changes_nothing(client: TestClient, papers: Collection) -> None:
    again = [client.post(FILES, files=upload(("a.txt", b"Glass."))).json() for _ in range(2)][1]
    assert again["run_id"] is None
    assert again["documents"][0]["outcome"] == "unchanged"


BAD_FILES: dict[str, tuple[tuple[str, bytes], int, str, Any]] = {
    "of an unknown kind": (("a.exe", b"MZ"), 415, "unsupported-file", None),
    "without a suffix": (("README", b"a"), 415, "unsupported-file", None),
    "not UTF-8": (("a.txt", b"caf\xe9"), 422, "invalid-text", None),
    "blank": (("a.txt", b" \n"), 422, "empty-text", None),
    "empty": (("a.txt", b""), 422, "empty-text", None),
    "too many bytes": (("a.txt", b"a" * 50_001), 413, "body-too-large", 50_000),
    "too many characters": (("a.txt", b"a" * 2_001), 422, "text-too-long", 2_000),
    "a damaged PDF": (("a.pdf", b"%PDF-1.7\nnothing"), 422, "damaged-file", None),
    "a long name": (("a" * 300 + ".txt", b"a"), 422, "text-too-long", 300),
    "a control character in the name": (("a\x7f.txt", b"a"), 422, "invalid-text", None),
}


@pytest.mark.parametrize(("file", "status", "code", "limit"), BAD_FILES.values(), ids=BAD_FILES)
def test_one_bad_file_refuses_them_all(
    client: TestClient,
    papers: Collection,
    rows: Rows,
    queued: Queued,
    file: tuple[str, bytes],
    status: int,
    code: str,
    limit: Any,
) -> None:
    before = rows()
    response = client.post(FILES, files=upload(("good.txt", b"Glass."), file))
    assert_problem(response, status, code, field="/files/1", limit=limit)
    assert rows() == before
    assert queued("ingest") == []


def test_faults_of_several_files_are_told_together(client: TestClient, papers: Collection) -> None:
    response = client.post(FILES, files=upload(("a.exe", b""), ("b.txt", b"b"), ("c.txt", b"")))
    problem = assert_problem(response, 415, "unsupported-file", field="/files/0")
    assert [fault["field"] for fault in problem["errors"]] == ["/files/0", "/files/2"]


def test_too_many_files_are_refused(client: TestClient, papers: Collection, rows: Rows) -> None:
    before = rows()
    response = client.post(FILES, files=upload(*((f"{n}.txt", b"a") for n in range(6))))
    assert_problem(response, 422, "too-many-documents", field="/files", limit=5)
    assert rows() == before


def test_a_form_without_files_is_refused(client: TestClient, papers: Collection) -> None:
    response = client.post(FILES, files=[("file", ("a.txt", b"a"))])
    assert_problem(response, 422, "invalid-request", field="/files")


def test_a_text_in_place_of_a_file_is_refused(client: TestClient, papers: Collection) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nhello\r\n--x--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = client.post(FILES, content=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["field"].startswith("/files")


@pytest.mark.parametrize("prefix", ["\0", "p" * 501])
def test_a_bad_prefix_is_refused(
    client: TestClient, papers: Collection, rows: Rows, prefix: str
) -> None:
    before = rows()
    data = {"source_prefix": prefix}
    response = client.post(FILES, files=upload(("a.txt", b"a")), data=data)
    assert response.status_code == 422
    assert response.json()["field"] == "/source_prefix"
    assert rows() == before


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=x", 400),
    ],
)
def test_a_body_that_is_no_form_is_refused(
    client: TestClient, papers: Collection, content_type: str, status: int
) -> None:
    response = client.post(FILES, content=b"{}", headers={"content-type": content_type})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["remedy"]


def test_files_for_an_unknown_collection_are_refused_before_they_are_read(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "extract_isolated", None)
    response = client.post("/v1/collections/nobody/files", files=upload(("a.pdf", b"%PDF")))
    assert_problem(response, 404, "unknown-collection", field="collection")


def test_at_most_two_files_are_read_at_once_and_the_server_answers_meanwhile(
    client: TestClient, papers: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = threading.Lock()
    answered = threading.Event()
    running, most = 0, 0

    def slow(name: str, data: bytes, **_: Any) -> SourceDocument:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert answered.wait(30)  # no file is read before the server has answered
        time.sleep(0.02)
        with lock:
            running -= 1
        return SourceDocument(text=data.decode(), title=name)

    monkeypatch.setattr(files, "extract_isolated", slow)
    with ThreadPoolExecutor(2) as pool:
        uploads = [
            pool.submit(
                client.post, FILES, files=upload(*((f"{n}{m}.txt", b"a") for m in range(4)))
            )
            for n in range(2)
        ]
        while running < files.FILES_AT_ONCE:
            time.sleep(0.01)
        assert client.get("/healthz").status_code == 200
        answered.set()
        assert [one.result().status_code for one in uploads] == [202, 202]
    assert most == 2
