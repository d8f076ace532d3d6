"""Documents over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, DocumentStatus, Passage, Run, RunKind, RunStatus
from tests.api.conftest import Queued, Rows, assert_problem
from tests.factories import make_document, make_latent, make_passage
from workers.purging import PURGE_PASSAGES

DOCUMENTS = "/v1/collections/papers/documents"


def test_documents_are_stored_and_one_run_is_sent(
    client: TestClient, db: OpenDb, papers: Collection, queued: Queued
) -> None:
    first = {
        "text": "Copper conducts.",
        "title": "Metals",
        "external_id": "metals/1",
        "source": "https://example.org/1",
        "metadata": {"pages": 3, "ratio": 0.5, "draft": False, "tags": "a,b", "big": 2**63 - 1},
    }
    written = client.post(DOCUMENTS, json={"documents": [first, {"text": "Glass does not."}]})
    assert written.status_code == 202
    answer = written.json()
    assert [one["outcome"] for one in answer["documents"]] == ["created", "created"]
    assert answer["documents"][0]["external_id"] == "metals/1"
    ids = [one["id"] for one in answer["documents"]]
    with db() as session:
        run = session.get_one(Run, UUID(answer["run_id"]))
        assert (run.kind, run.status, run.total) == (RunKind.INGEST, RunStatus.QUEUED, 2)
        assert run.inputs == {"documents": ids}
        assert run.collection_id == papers.id
        document = session.get_one(Document, UUID(ids[0]))
        assert document.metadata_ == first["metadata"]
        assert document.status is DocumentStatus.PENDING
    assert queued("ingest") == [("ingest_documents", [answer["run_id"]])]


def test_only_documents_that_changed_are_worked_on(
    client: TestClient, db: OpenDb, papers: Collection, queued: Queued
) -> None:
    body: dict[str, Any] = {
        "documents": [{"text": "a", "external_id": "1"}, {"text": "b", "external_id": "2"}]
    }
    ids = [one["id"] for one in client.post(DOCUMENTS, json=body).json()["documents"]]
    unchanged = client.post(DOCUMENTS, json=body).json()
    assert unchanged["run_id"] is None
    assert [one["outcome"] for one in unchanged["documents"]] == ["unchanged", "unchanged"]
    body["documents"][1]["text"] = "c"
    changed = client.post(DOCUMENTS, json=body).json()
    assert [one["outcome"] for one in changed["documents"]] == ["unchanged", "updated"]
    with db() as session:
        assert session.get_one(Run, UUID(changed["run_id"])).inputs == {"documents": [ids[1]]}
    assert len(queued("ingest")) == 2


def test_the_same_text_twice_in_one_request_is_one_document(
    client: TestClient, papers: Collection, rows: Rows
) -> None:
    written = client.post(DOCUMENTS, json={"documents": [{"text": "a"}, {"text": "a"}]}).json()
    first, second = written["documents"]
    assert first["id"] == second["id"]
    assert (first["outcome"], second["outcome"]) == ("created", "unchanged")
    assert rows()["document"] == 1


def test_every_storable_character_comes_back_unchanged(
    client: TestClient, papers: Collection
) -> None:
    text = "\ufeff a\r\n\tb\u2028 e\u0301 \U0001f50b \u202e\uffff end "
    written = client.post(DOCUMENTS, json={"documents": [{"text": text}]})
    assert written.status_code == 202
    document_id = written.json()["documents"][0]["id"]
    assert client.get(f"/v1/documents/{document_id}").json()["text"] == text


def test_documents_for_an_unknown_collection_are_refused(
    client: TestClient, rows: Rows, queued: Queued
) -> None:
    response = client.post("/v1/collections/nobody/documents", json={"documents": [{"text": "a"}]})
    assert_problem(response, 404, "unknown-collection", field="collection")
    assert rows() == {"collection": 0, "document": 0, "question": 0, "run": 0}
    assert queued("ingest") == []


def test_requests_that_write_the_same_documents_at_once_all_succeed(
    client: TestClient, papers: Collection, rows: Rows
) -> None:
    def write(number: int) -> int:
        order = range(5) if number % 2 else reversed(range(5))
        documents = [{"text": f"{number}", "external_id": f"{index}"} for index in order]
        return client.post(DOCUMENTS, json={"documents": documents}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(write, range(8))) == {202}
    assert rows()["document"] == 5


def test_documents_are_listed_in_pages_without_their_texts(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        made = [str(make_document(session, papers).id) for _ in range(5)]
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = client.get(DOCUMENTS, params=params).json()
        assert all("text" not in one for one in page["documents"])
        seen += [one["id"] for one in page["documents"]]
        if page["next"] is None:
            break
        params["after"] = page["next"]
    assert seen == made


def test_a_page_goes_on_where_its_last_document_was_deleted(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        made = [str(make_document(session, papers).id) for _ in range(3)]
    page = client.get(DOCUMENTS, params={"limit": 2}).json()
    assert client.delete(f"/v1/documents/{made[1]}").status_code == 202
    rest = client.get(DOCUMENTS, params={"after": page["next"]}).json()
    assert [one["id"] for one in rest["documents"]] == [made[2]]


def test_documents_are_listed_by_status(client: TestClient, db: OpenDb, papers: Collection) -> None:
    error = {"code": "damaged-file", "message": "no", "traceback": "File secret.py"}
    with db.begin() as session:
        make_document(session, papers)
        failed = make_document(session, papers, status=DocumentStatus.FAILED, error=error)
    (found,) = client.get(DOCUMENTS, params={"status": "failed"}).json()["documents"]
    assert found["id"] == str(failed.id)
    assert found["error"] == {"code": "damaged-file", "message": "no"}


@pytest.mark.parametrize("after", ["x", "bnVsbA==", "WyIxIiwgMl0=", "é", "W10="])
def test_a_cursor_that_no_page_gave_is_refused(
    client: TestClient, papers: Collection, after: str
) -> None:
    response = client.get(DOCUMENTS, params={"after": after})
    assert_problem(response, 422, "invalid-input", field="after")


def test_an_unknown_status_is_refused(client: TestClient, papers: Collection) -> None:
    response = client.get(DOCUMENTS, params={"status": "ready"})
    limit = "'pending', 'searchable', 'indexed' or 'failed'"
    assert_problem(response, 422, "invalid-request", field="status", limit=limit)


@pytest.mark.parametrize("part", ["", "/passages"])
def test_an_unknown_document_is_not_found(client: TestClient, part: str) -> None:
    response = client.get(f"/v1/documents/{uuid4()}{part}")
    assert_problem(response, 404, "unknown-document", field="document_id")
    response = client.get(f"/v1/documents/%00{part}")
    assert_problem(response, 422, "invalid-request", field="document_id")


def test_passages_show_their_text_and_whether_they_have_a_latent(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        document = make_document(session, papers, "Copper conducts. \U0001f50b Glass does not.")
        second = make_passage(session, document, 17, 34)
        first = make_passage(session, document, 0, 17)
        make_latent(session, second)
    found = client.get(f"/v1/documents/{document.id}/passages").json()
    assert found["passages"] == [
        {
            "id": str(first.id),
            "start": 0,
            "end": 17,
            "tokens": 4,
            "text": "Copper conducts. ",
            "has_latent": False,
        },
        {
            "id": str(second.id),
            "start": 17,
            "end": 34,
            "tokens": 4,
            "text": "\U0001f50b Glass does not.",
            "has_latent": True,
        },
    ]


def test_a_replaced_document_has_no_passages_until_it_is_split_again(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        document = make_document(session, papers, status=DocumentStatus.PENDING)
        make_passage(session, document)
    assert client.get(f"/v1/documents/{document.id}/passages").json()["passages"] == []


def test_deleting_a_document_takes_its_rows_and_queues_a_purge(
    client: TestClient, db: OpenDb, papers: Collection, queued: Queued
) -> None:
    with db.begin() as session:
        document = make_document(session, papers)
        passage = make_passage(session, document)
        make_latent(session, passage)
        kept = make_passage(session, make_document(session, papers))
    removed = client.delete(f"/v1/documents/{document.id}")
    assert removed.status_code == 202
    (run_id,) = removed.json()["run_ids"]
    with db() as session:
        assert session.scalars(select(Passage.id)).all() == [kept.id]
        run = session.get_one(Run, UUID(run_id))
        assert run.inputs == {
            "collection_id": str(papers.id),
            "passages": [str(passage.id)],
            "documents": [str(document.id)],
        }
        assert (run.kind, run.total, run.collection_id) == (RunKind.PURGE, 1, papers.id)
    assert queued("ingest") == [("purge_passages", [run_id])]
    again = client.delete(f"/v1/documents/{document.id}")
    assert_problem(again, 404, "unknown-document", field="document_id")


def test_the_passages_of_a_long_document_are_purged_by_several_runs(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    count = PURGE_PASSAGES + 1
    with db.begin() as session:
        document = make_document(session, papers, "a" * count)
        session.add_all(
            Passage(
                collection_id=papers.id,
                document_id=document.id,
                start=at,
                end=at + 1,
                tokens=1,
                text="a",
            )
            for at in range(count)
        )
    run_ids = client.delete(f"/v1/documents/{document.id}").json()["run_ids"]
    with db() as session:
        inputs = [session.get_one(Run, UUID(one)).inputs for one in run_ids]
    assert [one.get("documents") for one in inputs] == [[str(document.id)], None]
    parts = [one["passages"] for one in inputs]
    assert [len(part) for part in parts] == [PURGE_PASSAGES, 1]
    assert len({passage for part in parts for passage in part}) == count


def test_a_document_without_passages_is_purged_of_what_a_dead_worker_may_have_left(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        document = make_document(session, papers, status=DocumentStatus.PENDING)
    (run_id,) = client.delete(f"/v1/documents/{document.id}").json()["run_ids"]
    with db() as session:
        inputs = session.get_one(Run, UUID(run_id)).inputs
    assert (inputs["documents"], inputs["passages"]) == ([str(document.id)], [])
