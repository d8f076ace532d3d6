"""Checkpoints over HTTP: registered, scored, promoted through the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from api.app import create_app
from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Run, RunKind
from clara.settings import Settings
from tests.api.conftest import Queued, Rows, assert_problem
from tests.factories import make_checkpoint, make_collection

CHECKPOINTS = "/v1/checkpoints"
GOOD = {"nq": {"n": 100, "cover_em": 0.5, "recall@5": 0.8}}


def made(db: OpenDb, **values: Any) -> UUID:
    with db.begin() as session:
        return make_checkpoint(session, **({"path": "/weights"} | values)).id


def stored(db: OpenDb, checkpoint_id: UUID) -> Checkpoint:
    with db() as session:
        return session.get_one(Checkpoint, checkpoint_id)


def promote(client: TestClient, checkpoint_id: UUID, **body: Any) -> Any:
    return client.post(f"{CHECKPOINTS}/{checkpoint_id}/promote", json=body)


def test_a_checkpoint_shows_where_it_is_and_what_it_scores(client: TestClient, db: OpenDb) -> None:
    one = made(db, scores=GOOD)
    found = client.get(f"{CHECKPOINTS}/{one}").json()
    assert (found["path"], found["scores"], found["active"]) == ("/weights", GOOD, False)
    assert found["gate"] is found["promoted_at"] is found["run_id"] is None
    assert_problem(
        client.get(f"{CHECKPOINTS}/{uuid4()}"), 404, "unknown-checkpoint", field="checkpoint"
    )


def test_a_folder_is_registered_by_a_worker(
    client: TestClient, db: OpenDb, queued: Queued, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    started = client.post(CHECKPOINTS, json={"path": str(tmp_path), "base": "/models/base"})
    assert started.status_code == 202
    with db() as session:
        run = session.get_one(Run, UUID(started.json()["run_id"]))
    assert run.kind is RunKind.REGISTER
    assert run.inputs == {"path": str(tmp_path), "base": "/models/base"}
    assert queued("compress") == [("register_checkpoint", [str(run.id)])]


@pytest.mark.parametrize("path", ["/nowhere", "relative", "../a", "", "a b/c", "/"])
def test_what_is_no_folder_of_a_model_is_not_found(
    client: TestClient, rows: Rows, path: str
) -> None:
    before = rows()
    response = client.post(CHECKPOINTS, json={"path": path})
    assert_problem(response, 404, "unknown-checkpoint", field="/path")
    assert rows() == before


def test_scores_are_kept_by_set_and_what_is_no_number_is_left_out(
    client: TestClient, db: OpenDb
) -> None:
    one = made(db, scores={"nq": {"cover_em": 0.1}, "dev": {"score": 2.0}})
    options = {"mode": "latent", "top_k": 5, "else": [1]}
    numbers = {"n": 948, "cover_em": 0.4, "intervals": {"cover_em": [0.3, 0.5]}}
    sent = {"nq": numbers | {"options": options}}
    found = client.post(f"{CHECKPOINTS}/{one}/scores", json=sent)
    assert found.status_code == 200
    kept = {"n": 948, "cover_em": 0.4, "options": {"mode": "latent", "top_k": 5}}
    assert found.json()["scores"] == {"nq": kept, "dev": {"score": 2.0}}


BAD_SCORES: dict[str, tuple[Any, str]] = {
    "no set": ({}, ""),
    "a set of nothing": ({"nq": {}}, "/nq"),
    "numbers the gate does not read": ({"nq": {"right": 0.2}}, "/nq"),
    "a percentage": ({"nq": {"cover_em": 41.2}}, "/nq/cover_em"),
    "a number without end": ({"nq": {"score": 1e300}}, "/nq/score"),
    "a list": ([], ""),
    "a number in place of a set": ({"nq": 0.4}, "/nq"),
    "a control character in a name": ({"n\0q": {"cover_em": 0.4}}, "/n\\x00q"),
    "a control character in an option": (
        {"nq": {"cover_em": 0.4, "options": {"mode": "\0"}}},
        "/nq/options/mode",
    ),
}


@pytest.mark.parametrize(("body", "field"), BAD_SCORES.values(), ids=BAD_SCORES)
def test_scores_that_say_nothing_are_refused(
    client: TestClient, db: OpenDb, body: Any, field: str
) -> None:
    one = made(db)
    response = client.post(f"{CHECKPOINTS}/{one}/scores", json=body)
    assert response.status_code == 422, response.text
    assert response.json()["field"] == field
    assert response.json()["remedy"]
    assert stored(db, one).scores == {}


def test_scores_of_an_unknown_checkpoint_are_refused(client: TestClient) -> None:
    response = client.post(f"{CHECKPOINTS}/{uuid4()}/scores", json=GOOD)
    assert_problem(response, 404, "unknown-checkpoint", field="checkpoint")


def test_a_scored_checkpoint_is_promoted_and_takes_the_others_place(
    client: TestClient, db: OpenDb
) -> None:
    first, second = made(db, scores=GOOD), made(db, scores=GOOD)
    assert promote(client, first).json()["active"] is True
    found = promote(client, second).json()
    assert found["promoted_at"]
    assert found["gate"]["against"] == str(first)
    active = {one["id"]: one["active"] for one in client.get(CHECKPOINTS).json()["checkpoints"]}
    assert active == {str(first): False, str(second): True}


def answered_from(db: OpenDb, checkpoint: UUID, **values: Any) -> UUID:
    """A collection whose first generation is of this checkpoint."""
    with db.begin() as session:
        collection = make_collection(session, **values)
        generations.ensure(session, collection.id, session.get_one(Checkpoint, checkpoint))
        return collection.id


def active(db: OpenDb, collection: UUID) -> tuple[int, UUID]:
    with db() as session:
        found = generations.active(session, collection)
    assert found
    return found.number, found.checkpoint_id


def test_collections_follow_a_promotion_at_once_where_they_share_its_latents(
    client: TestClient, db: OpenDb, queued: Queued
) -> None:
    old, new = made(db, fingerprint="f"), made(db, fingerprint="f", scores=GOOD)
    one, other = answered_from(db, old), answered_from(db, old)
    held = answered_from(db, old, held=True)
    assert promote(client, new).status_code == 200
    assert active(db, one) == active(db, other) == (2, new)
    assert active(db, held) == (1, old)
    assert queued("recompress") == []


def test_for_other_collections_a_promotion_queues_a_recompression_through_the_gate(
    client: TestClient, db: OpenDb, queued: Queued
) -> None:
    old, new = made(db, fingerprint="f"), made(db, fingerprint="g", scores=GOOD)
    one = answered_from(db, old)
    answered_from(db, old, held=True)
    with db.begin() as session:
        make_collection(session)  # of no generation yet
    for _ in range(2):  # the second finds it under way
        assert promote(client, new).status_code == 200
        with db() as session:
            (run,) = session.scalars(select(Run).where(Run.kind == RunKind.RECOMPRESS))
    assert run.collection_id == one
    wanted = {"checkpoint_id": str(new), "reason": "promotion", "gate": True}
    assert wanted.items() <= run.inputs.items()
    assert queued("recompress") == [("recompress_collection", [str(run.id)])]
    assert active(db, one) == (1, old)


def test_force_overrules_both_gates(client: TestClient, db: OpenDb) -> None:
    old, new = made(db, fingerprint="f"), made(db, fingerprint="g")
    answered_from(db, old)
    promote(client, new, force=True, reason="it leaks")
    with db() as session:
        (run,) = session.scalars(select(Run).where(Run.kind == RunKind.RECOMPRESS))
    assert run.inputs["gate"] is False


def test_a_refused_promotion_moves_no_collection(client: TestClient, db: OpenDb) -> None:
    old, new = made(db, fingerprint="f"), made(db, fingerprint="f")
    one = answered_from(db, old)
    assert promote(client, new).status_code == 409
    assert active(db, one) == (1, old)


def test_a_checkpoint_nobody_evaluated_is_refused(client: TestClient, db: OpenDb) -> None:
    one = made(db)
    response = promote(client, one)
    problem = assert_problem(response, 409, "promotion-refused", field="checkpoint", limit=0.02)
    assert "never evaluated" in problem["detail"]
    row = stored(db, one)
    assert not row.active
    assert row.gate
    assert row.gate["passed"] is False


def test_a_worse_checkpoint_is_refused_with_its_numbers_unless_forced(
    client: TestClient, db: OpenDb
) -> None:
    first = made(db, scores=GOOD)
    second = made(db, scores={"nq": {"n": 100, "cover_em": 0.45, "recall@5": 0.8}})
    promote(client, first)
    problem = promote(client, second).json()
    assert problem["status"] == 409
    assert "cover_em on nq is 0.45" in problem["detail"]
    assert stored(db, first).active
    found = promote(client, second, force=True, reason="shorter answers").json()
    assert (found["active"], found["gate"]["forced"]) == (True, "shorter answers")
    assert not stored(db, first).active


def test_force_takes_a_reason(client: TestClient, db: OpenDb) -> None:
    one = made(db, scores=GOOD)
    for reason in ("", " "):
        response = promote(client, one, force=True, reason=reason)
        assert_problem(response, 422, "invalid-input", field="/reason")
    assert not stored(db, one).active


def test_what_has_no_weights_is_not_promoted(client: TestClient, db: OpenDb) -> None:
    untrained = made(db, path=None, scores=GOOD)
    response = promote(client, untrained, force=True, reason="please")
    assert_problem(response, 409, "promotion-refused", field="checkpoint")


def test_an_unknown_checkpoint_is_not_promoted(client: TestClient) -> None:
    assert_problem(promote(client, uuid4()), 404, "unknown-checkpoint", field="checkpoint")


def test_nothing_is_promoted_where_a_setting_decides(
    config: Settings, db: OpenDb, queued: Queued
) -> None:
    fixed = config.model_copy(update={"checkpoint": "/weights"})
    one = made(db, scores=GOOD)
    with TestClient(create_app(fixed)) as client:
        response = promote(client, one)
    assert_problem(response, 409, "promotion-refused", field="CLARA_CHECKPOINT")
    assert not stored(db, one).active
