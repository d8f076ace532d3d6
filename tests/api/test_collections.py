"""Collections over HTTP."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, insert, literal, select

from clara.db.connect import OpenDb
from clara.db.tables import (
    Collection,
    Document,
    DocumentStatus,
    Latent,
    Passage,
    Run,
    RunKind,
    RunStatus,
)
from tests.api.conftest import Queued, Rows, assert_problem
from tests.factories import (
    make_collection,
    make_document,
    make_latent,
    make_passage,
    make_question,
    make_run,
)


def test_a_collection_is_created_once(client: TestClient, rows: Rows) -> None:
    created = client.post("/v1/collections", json={"name": "papers", "description": "Old ones."})
    assert created.status_code == 201
    assert created.json().keys() == {"name", "description", "created_at"}
    again = client.post("/v1/collections", json={"name": "papers"})
    assert_problem(again, 409, "duplicate-collection", field="name")
    assert rows()["collection"] == 1


def test_collections_are_listed_by_name_in_pages(client: TestClient, db: OpenDb) -> None:
    with db.begin() as session:
        for name in ("b", "a", "c"):
            make_collection(session, name)
    first = client.get("/v1/collections?limit=2").json()
    assert [one["name"] for one in first["collections"]] == ["a", "b"]
    last = client.get("/v1/collections", params={"after": first["next"]}).json()
    assert [one["name"] for one in last["collections"]] == ["c"]
    assert last["next"] is None


def test_a_collection_says_how_much_is_in_it(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        other = make_collection(session)
        for collection in (papers, other):
            document = make_document(session, collection)
            passage = make_passage(session, document, 0, 10)
            make_latent(session, passage, "a" * 64)
            make_latent(session, passage, "b" * 64)
            make_passage(session, document, 10, 20)
        make_document(session, papers, status=DocumentStatus.FAILED)
        make_document(session, papers, status=DocumentStatus.PENDING)
        for status in RunStatus:
            make_run(session, status=status, collection=papers)
    found = client.get("/v1/collections/papers").json()
    assert found["documents"] == {"pending": 1, "searchable": 0, "indexed": 1, "failed": 1}
    assert (found["passages"], found["latents"], found["active_runs"]) == (2, 1, 3)


def test_an_empty_collection_counts_nothing(client: TestClient, papers: Collection) -> None:
    found = client.get("/v1/collections/papers").json()
    assert found["documents"] == {"pending": 0, "searchable": 0, "indexed": 0, "failed": 0}
    assert (found["passages"], found["latents"], found["active_runs"]) == (0, 0, 0)


def test_counting_thirty_thousand_passages_is_one_quick_query(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        document = make_document(session, papers)
        session.execute(
            insert(Passage).from_select(
                ["id", "collection_id", "document_id", "start", "end", "tokens", "text"],
                select(
                    func.gen_random_uuid(),
                    Document.collection_id,
                    Document.id,
                    func.generate_series(0, 29_999).label("start"),
                    func.generate_series(1, 30_000).label("end"),
                    literal(1),
                    literal("x"),
                ).where(Document.id == document.id),
            )
        )
        session.execute(
            insert(Latent).from_select(
                ["passage_id", "fingerprint", "block", "rows", "width", "checksum"],
                select(
                    Passage.id,
                    literal("f" * 64),
                    func.decode("00000000", "hex"),
                    literal(1),
                    literal(2),
                    literal(0),
                ),
            )
        )
    found = client.get("/v1/collections/papers")
    assert (found.json()["passages"], found.json()["latents"]) == (30_000, 30_000)
    assert found.elapsed.total_seconds() < 2


@pytest.mark.parametrize("name", ["nobody", "UPPER", "%00", "a%20b", "%F0%9F%94%8B", "n" * 5_000])
def test_an_unknown_collection_is_not_found(client: TestClient, name: str) -> None:
    for path in (f"/v1/collections/{name}", f"/v1/collections/{name}/documents"):
        found = client.get(path)
        assert found.status_code == 404
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["type"] == "urn:clara:problem:unknown-collection"
    assert client.delete(f"/v1/collections/{name}").status_code == 404


def test_deleting_a_collection_takes_its_rows_and_queues_a_purge(
    client: TestClient, db: OpenDb, papers: Collection, queued: Queued, rows: Rows
) -> None:
    with db.begin() as session:
        make_passage(session, make_document(session, papers))
        question = make_question(session, papers)
        kept = make_document(session, make_collection(session, "kept"))
    removed = client.delete("/v1/collections/papers")
    assert removed.status_code == 202
    (run_id,) = removed.json()["run_ids"]
    assert queued("ingest") == [("purge_passages", [run_id])]
    assert rows() == {"collection": 1, "document": 1, "question": 0, "run": 2}
    with db() as session:
        assert session.get(Document, kept.id)
        run = session.get_one(Run, run_id)
        assert (run.kind, run.status) == (RunKind.PURGE, RunStatus.QUEUED)
        assert run.inputs == {"collection_id": str(papers.id), "name": "papers"}
        assert run.collection_id is None
        assert session.get_one(Run, question.run_id).status is RunStatus.CANCELLED
    assert client.delete("/v1/collections/papers").status_code == 404
    assert client.get(f"/v1/runs/{run_id}").json()["collection"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "after=UPPER", "limti=3"])
def test_a_page_that_cannot_be_is_refused(client: TestClient, query: str) -> None:
    limits = {"limit=0": 1, "limit=201": 200, "after=UPPER": r"^[a-z0-9][a-z0-9_-]{0,62}$"}
    assert_problem(
        client.get(f"/v1/collections?{query}"),
        422,
        "invalid-request",
        field=query.split("=")[0],
        limit=limits.get(query),
    )
