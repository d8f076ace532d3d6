"""Recompressions and generations over HTTP."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from api.app import create_app
from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Collection, Document, DocumentStatus, Run, RunKind
from clara.db.tables import RunStatus as Status
from clara.settings import Settings
from tests.api.conftest import Queued, Rows, assert_problem
from tests.factories import (
    make_checkpoint,
    make_document,
    make_latent,
    make_passage,
    make_run,
)
from tests.workers.test_runs import begun
from workers.compressing import compress

HERE = "/v1/collections/papers"
OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def checkpoints(db: OpenDb, papers: Collection) -> tuple[UUID, UUID]:
    """Two, of different compressors; `papers` holds a passage and answers from the first."""
    with db.begin() as session:
        old = make_checkpoint(session, name="old", fingerprint=OLD, path="/old")
        new = make_checkpoint(session, name="new", fingerprint=NEW, path="/new")
        passage = make_passage(session, make_document(session, papers), tokens=9)
        make_latent(session, passage, OLD)
        generations.ensure(session, papers.id, old)
    return old.id, new.id


def stored(db: OpenDb, run_id: str) -> Run:
    with db() as session:
        return session.get_one(Run, UUID(run_id))


def switched(db: OpenDb, papers: Collection, checkpoint: UUID) -> None:
    """What a recompression to a checkpoint leaves, but for its latents."""
    with db.begin() as session:
        row = session.get_one(Checkpoint, checkpoint)
        made = generations.build(session, papers.id, row, None)
        generations.switch(session, made.id, keep=2, gate={"passed": True, "reasons": ["well"]})


def test_a_dry_run_says_what_it_takes_and_does_nothing(
    client: TestClient, checkpoints: tuple[UUID, UUID], rows: Rows
) -> None:
    before = rows()
    plan = client.post(f"{HERE}/recompressions", json={"checkpoint": "new", "dry_run": True})
    assert plan.status_code == 200
    found = plan.json()
    assert found["stale"] == {"text": 0, "damaged": 0, "fingerprint": 1, "missing": 0}
    assert (found["passages"], found["to_make"], found["tokens"]) == (1, 1, 9)
    assert (found["way"], found["checkpoint_id"]) == ("switched", str(checkpoints[1]))
    assert found["seconds"] == {"value": None, "basis": "nothing measured yet"}
    same = client.post(f"{HERE}/recompressions", json={"dry_run": True}).json()
    assert (same["way"], same["checkpoint"], same["to_make"]) == ("nothing", "old", 0)
    assert rows() == before


def test_a_recompression_is_queued_once_and_lets_the_collection_go(
    client: TestClient, db: OpenDb, queued: Queued, checkpoints: tuple[UUID, UUID]
) -> None:
    with db.begin() as session:
        session.query(Collection).update({"held": True})
        session.get_one(Checkpoint, checkpoints[1]).active = True
    asked = client.post(f"{HERE}/recompressions", json={"checkpoint": str(checkpoints[1])})
    assert asked.status_code == 202
    run = stored(db, asked.json()["run_id"])
    assert run.kind is RunKind.RECOMPRESS
    assert run.inputs == {
        "checkpoint_id": str(checkpoints[1]),
        "reason": "asked",
        "gate": True,
        "rebuild_indexes": False,
        "deadline": None,
    }
    assert queued("recompress") == [("recompress_collection", [str(run.id)])]
    assert client.get(f"{HERE}/generations").json()["held"] is False
    again = client.post(f"{HERE}/recompressions", json={})
    problem = assert_problem(
        again, 409, "recompression-busy", field="collection", limit=str(run.id)
    )
    assert str(run.id) in problem["detail"]


def test_by_default_it_is_the_promoted_checkpoint(
    client: TestClient, db: OpenDb, checkpoints: tuple[UUID, UUID]
) -> None:
    with db.begin() as session:
        session.get_one(Checkpoint, checkpoints[1]).active = True
    assert (
        client.post(f"{HERE}/recompressions", json={"dry_run": True}).json()["checkpoint"] == "new"
    )


def test_a_new_lexical_index_is_planned_with_what_the_last_one_took(
    client: TestClient, db: OpenDb, papers: Collection, checkpoints: tuple[UUID, UUID]
) -> None:
    asked = {"dry_run": True, "rebuild_indexes": True}
    plan = client.post(f"{HERE}/recompressions", json=asked).json()
    unknown = {"value": None, "basis": "nothing measured yet"}
    assert plan["rebuild"] == {"passages": 1, "seconds": unknown}
    with db.begin() as session:
        done = {"indexed": 4_000, "index_seconds": 2_000.0}
        make_run(session, RunKind.RECOMPRESS, Status.SUCCEEDED, papers, result=done)
    plan = client.post(f"{HERE}/recompressions", json=asked).json()
    assert plan["rebuild"]["seconds"]["value"] == 0.5
    assert "2 passages a second" in plan["rebuild"]["seconds"]["basis"]
    plain = client.post(f"{HERE}/recompressions", json={"dry_run": True}).json()
    assert plain["rebuild"] is None


@pytest.mark.parametrize("rebuild", [True, False])
def test_making_the_lexical_index_anew_leaves_a_held_collection_where_it_is(
    client: TestClient, db: OpenDb, checkpoints: tuple[UUID, UUID], rebuild: bool
) -> None:
    with db.begin() as session:
        session.query(Collection).update({"held": True})
        session.get_one(Checkpoint, checkpoints[1]).active = True
    asked = client.post(f"{HERE}/recompressions", json={"rebuild_indexes": rebuild})
    inputs = stored(db, asked.json()["run_id"]).inputs
    assert inputs["checkpoint_id"] == str(checkpoints[0] if rebuild else checkpoints[1])
    assert inputs["rebuild_indexes"] is rebuild
    assert client.get(f"{HERE}/generations").json()["held"] is rebuild


def test_a_checkpoint_that_a_setting_names_is_not_overruled_by_a_promoted_one(
    db: OpenDb, config: Settings, checkpoints: tuple[UUID, UUID]
) -> None:
    with db.begin() as session:
        session.get_one(Checkpoint, checkpoints[1]).active = True
    app = create_app(config.model_copy(update={"checkpoint": "/named"}))
    with TestClient(app) as client:
        plan = client.post(f"{HERE}/recompressions", json={"dry_run": True}).json()
    assert plan["checkpoint"] == "old"


def test_what_is_not_there_is_named(client: TestClient, papers: Collection, rows: Rows) -> None:
    before = rows()
    missing = client.post(f"{HERE}/recompressions", json={"checkpoint": str(uuid4())})
    assert_problem(missing, 404, "unknown-checkpoint", field="checkpoint")
    none = client.post(f"{HERE}/recompressions", json={})
    assert_problem(none, 404, "unknown-checkpoint", field="/checkpoint")
    nowhere = client.post("/v1/collections/nowhere/recompressions", json={})
    assert nowhere.status_code == 404
    assert client.get("/v1/collections/nowhere/generations").status_code == 404
    assert client.post("/v1/collections/nowhere/rollback", json={}).status_code == 404
    assert client.post(f"{HERE}/recompressions", json={"gate": "no"}).status_code == 422
    assert client.post(f"{HERE}/rollback", json={"to": 0}).status_code == 422
    assert rows() == before


def test_generations_are_listed_with_what_the_gate_said(
    client: TestClient, db: OpenDb, papers: Collection, checkpoints: tuple[UUID, UUID]
) -> None:
    switched(db, papers, checkpoints[1])
    found = client.get(f"{HERE}/generations").json()
    shown = [
        (row["number"], row["status"], row["checkpoint"], row["latents"])
        for row in found["generations"]
    ]
    assert shown == [(2, "active", "new", 0), (1, "kept", "old", 1)]
    assert found["generations"][0]["gate"]["reasons"] == ["well"]


def test_a_checkpoint_that_is_named_and_not_promoted_holds_the_collection(
    client: TestClient, db: OpenDb, checkpoints: tuple[UUID, UUID]
) -> None:
    with db.begin() as session:
        session.get_one(Checkpoint, checkpoints[0]).active = True
    run = client.post(f"{HERE}/recompressions", json={"checkpoint": "new"}).json()["run_id"]
    assert client.get(f"{HERE}/generations").json()["held"] is True
    client.post(f"/v1/runs/{run}/cancel")
    assert client.post(f"{HERE}/recompressions", json={}).status_code == 202
    assert client.get(f"{HERE}/generations").json()["held"] is False


def test_going_back_is_at_once_holds_the_collection_and_ends_what_is_at_work(
    client: TestClient, db: OpenDb, papers: Collection, checkpoints: tuple[UUID, UUID]
) -> None:
    switched(db, papers, checkpoints[1])
    working = client.post(f"{HERE}/recompressions", json={}).json()["run_id"]
    back = client.post(f"{HERE}/rollback", json={})
    assert back.status_code == 200, back.text
    found = back.json()
    assert (found["generation"]["number"], found["generation"]["status"]) == (1, "active")
    assert found["cancelled"] == working
    assert stored(db, working).status is Status.CANCELLED
    assert client.get(f"{HERE}/generations").json()["held"] is True
    forward = client.post(f"{HERE}/rollback", json={"to": 2}).json()
    assert (forward["generation"]["number"], forward["cancelled"]) == (2, None)
    nine = client.post(f"{HERE}/rollback", json={"to": 9})
    assert_problem(nine, 404, "unknown-generation", field="generation", limit="2, 1")


def test_going_back_has_a_run_say_which_documents_wait_and_make_their_latents(
    client: TestClient,
    db: OpenDb,
    papers: Collection,
    queued: Queued,
    checkpoints: tuple[UUID, UUID],
) -> None:
    switched(db, papers, checkpoints[1])
    with db.begin() as session:
        late = make_passage(session, make_document(session, papers))
        make_latent(session, late, NEW)
    client.post(f"{HERE}/rollback", json={})
    ((task, (run_id,)),) = queued("compress")
    assert task == "compress_collection"
    with pytest.raises(NoModel):
        compress(begun(db, UUID(run_id)), without_models(db), db)
    with db() as session:
        assert session.get_one(Document, late.document_id).status is DocumentStatus.SEARCHABLE


def test_going_back_touches_no_document_passage_or_latent(
    client: TestClient, db: OpenDb, papers: Collection, checkpoints: tuple[UUID, UUID]
) -> None:
    """So it takes as long whatever the size of the collection is."""
    switched(db, papers, checkpoints[1])
    told: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        told.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert client.post(f"{HERE}/rollback", json={}).status_code == 200
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert any("generation" in statement for statement in told)
    tables = r"\b(FROM|JOIN|UPDATE|INTO) (document|passage|latent)\b"
    assert not [statement for statement in told if re.search(tables, statement)]


class NoModel(Exception):
    """A checkpoint that cannot be loaded."""


def without_models(db: OpenDb) -> Any:
    """A worker that knows which generation answers, and can load no checkpoint."""

    def generation(collection: UUID) -> Any:
        with db() as session:
            return generations.active(session, collection)

    def compressing(_: UUID) -> Any:
        raise NoModel

    return SimpleNamespace(generation=generation, compressing=compressing)
