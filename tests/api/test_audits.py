"""What is left of deleted things, over HTTP."""

from __future__ import annotations

from uuid import UUID, uuid4

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from clara.audit import Stores
from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, Run, RunStatus
from clara.retrieval.dense_log import DenseLog
from clara.retrieval.faiss import FaissIndex
from clara.settings import Settings
from clara.types import PassageText
from tests.api.conftest import assert_problem
from tests.factories import (
    make_answer,
    make_candidate,
    make_citation,
    make_document,
    make_latent,
    make_passage,
    make_question,
)


@pytest.fixture
def stores(app: FastAPI) -> Stores:
    found: Stores = app.state.stores()
    return found


@pytest.fixture
def kept(db: OpenDb, papers: Collection, stores: Stores) -> UUID:
    """A document of which every store holds something, beside another."""
    with db.begin() as session:
        document = make_document(session, papers)
        passage = make_passage(session, document)
        make_latent(session, passage)
        question = make_question(session, papers)
        make_citation(session, make_answer(session, question), document, passage)
        make_candidate(session, question, passage)
        other = make_passage(session, make_document(session, papers))
    put(db, stores, papers.id, document.id, passage.id)
    put(db, stores, papers.id, other.document_id, other.id)
    return document.id


def put(db: OpenDb, stores: Stores, collection: UUID, document: UUID, passage: UUID) -> None:
    stores.lexical.put(collection, [PassageText(passage, document, "", "Copper conducts.")])
    vectors = DenseLog(db, encoder="e", dimension=2)
    vectors.put(collection, {passage: np.array([1, 0], np.float32)})


def counts(client: TestClient, path: str) -> dict[str, int]:
    found = client.get(path).json()
    places: dict[str, int] = {one["name"]: one["entries"] for one in found["places"]}
    assert found["clean"] == (not any(places.values()))
    return places


def test_every_place_that_holds_a_part_of_a_document_is_named(
    client: TestClient, kept: UUID
) -> None:
    assert counts(client, f"/v1/documents/{kept}/audit") == {
        "document": 1,
        "passage": 1,
        "latent": 1,
        "citation": 1,
        "candidate": 1,
        "lexical index": 1,
        "dense index": 1,
        "dense snapshots": 0,
    }


def test_a_deleted_document_is_in_both_indexes_until_it_is_purged(
    client: TestClient, kept: UUID, stores: Stores, papers: Collection, db: OpenDb
) -> None:
    (run_id,) = client.delete(f"/v1/documents/{kept}").json()["run_ids"]
    path = f"/v1/documents/{kept}/audit"
    left = counts(client, path)
    assert {name for name, entries in left.items() if entries} == {"lexical index", "dense index"}
    found = client.get(path).json()
    assert found["pending_runs"] == [run_id]
    (example,) = found["places"][-2]["examples"]
    stores.lexical.delete(papers.id, [UUID(example)])
    DenseLog(db, encoder="e", dimension=2).delete(papers.id, [UUID(example)])
    with db.begin() as session:
        session.get_one(Run, UUID(run_id)).status = RunStatus.SUCCEEDED
    assert client.get(path).json()["clean"] is True
    assert client.get(path).json()["pending_runs"] == []


def test_words_a_worker_left_behind_are_found_without_any_row(
    client: TestClient, db: OpenDb, stores: Stores, papers: Collection
) -> None:
    document, passage = uuid4(), uuid4()
    put(db, stores, papers.id, document, passage)
    left = counts(client, f"/v1/documents/{document}/audit")
    assert (left["lexical index"], left["dense index"], left["passage"]) == (1, 1, 0)


def test_a_snapshot_that_still_has_the_vector_of_a_deleted_document_is_named(
    client: TestClient, kept: UUID, config: Settings, db: OpenDb, papers: Collection
) -> None:
    index = FaissIndex(
        db,
        encoder="e",
        dimension=2,
        snapshots=config.snapshots,
        snapshot_rows=1,
        later=lambda task: task(),
    )
    index.search(papers.id, np.array([1, 0], np.float32), limit=1)
    client.delete(f"/v1/documents/{kept}")
    assert counts(client, f"/v1/documents/{kept}/audit")["dense snapshots"] == 1
    index.drop(papers.id)
    assert counts(client, f"/v1/documents/{kept}/audit")["dense snapshots"] == 0


def test_a_document_that_never_was_leaves_nothing(client: TestClient, papers: Collection) -> None:
    assert not any(counts(client, f"/v1/documents/{uuid4()}/audit").values())


def test_a_collection_is_clean_where_its_documents_account_for_every_entry(
    client: TestClient, kept: UUID, db: OpenDb, stores: Stores, papers: Collection
) -> None:
    path = "/v1/collections/papers/audit"
    assert counts(client, path) == {"lexical index": 0, "dense index": 0, "dense snapshots": 0}
    put(db, stores, papers.id, uuid4(), stray := uuid4())
    assert counts(client, path) == {"lexical index": 1, "dense index": 1, "dense snapshots": 0}
    assert client.get(path).json()["places"][0]["examples"] == [str(stray)]


def test_a_deleted_collection_is_looked_for_under_its_name(
    client: TestClient, kept: UUID, stores: Stores, db: OpenDb, papers: Collection
) -> None:
    (run_id,) = client.delete("/v1/collections/papers").json()["run_ids"]
    path = "/v1/collections/papers/audit"
    assert counts(client, path) == {"lexical index": 2, "dense index": 2, "dense snapshots": 0}
    assert client.get(path).json()["pending_runs"] == [run_id]
    stores.lexical.drop(papers.id)
    DenseLog(db, encoder="e", dimension=2).drop(papers.id)
    assert not any(counts(client, path).values())
    with db() as session:
        assert session.scalars(select(Document)).all() == []


def test_a_collection_that_never_was_is_unknown(client: TestClient) -> None:
    response = client.get("/v1/collections/nobody/audit")
    assert_problem(response, 404, "unknown-collection", field="collection")
