"""Trainings over HTTP: what is refused at once, what is queued, and how far they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from clara.db.connect import OpenDb
from clara.db.tables import Run, RunKind, RunStatus
from clara.settings import Settings
from tests.api.conftest import Queued, Rows, assert_problem
from tests.factories import make_checkpoint, make_run

TRAININGS = "/v1/trainings"


def wanted(**values: Any) -> dict[str, Any]:
    return {"stage": 1, "data": ["a.jsonl"], "name": "mine"} | values


@pytest.fixture(autouse=True)
def files(config: Settings) -> Path:
    """One uploaded file, and one beside the folder."""
    folder = config.training_files
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("{}\n")
    (folder.parent / "secret.jsonl").write_text("{}\n")
    (folder / "link.jsonl").symlink_to(folder.parent / "secret.jsonl")
    return folder


def test_a_training_is_a_queued_run_with_its_whole_configuration(
    client: TestClient, db: OpenDb, queued: Queued
) -> None:
    body = wanted(
        dev=["a.jsonl"], base="/models/base", config={"optimiser": {"learning_rate": 0.001}}
    )
    started = client.post(TRAININGS, json=body)
    assert started.status_code == 202
    run_id = started.json()["run_id"]
    with db() as session:
        run = session.get_one(Run, UUID(run_id))
    assert (run.kind, run.status) == (RunKind.TRAIN, RunStatus.QUEUED)
    assert run.inputs["config"]["stage"] == 1
    assert run.inputs["config"]["optimiser"]["learning_rate"] == 0.001
    assert run.inputs["config"]["latents"]["compr_rate"] == 32
    assert run.inputs["data"] == run.inputs["dev"] == ["a.jsonl"]
    assert (run.inputs["base"], run.inputs["name"]) == ("/models/base", "mine")
    assert queued("train") == [("train", [run_id])]


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a stage there is none of": (wanted(stage=4), "invalid-request", "/stage"),
    "a stage in words": (wanted(stage="1"), "invalid-request", "/stage"),
    "no data": (wanted(data=[]), "invalid-request", "/data"),
    "one name in place of a list": (wanted(data="a.jsonl"), "invalid-request", "/data"),
    "an unknown member": (wanted(steps=5), "invalid-request", "/steps"),
    "a name with a slash": (wanted(name="a/b"), "invalid-request", "/name"),
    "a hidden name": (wanted(name=".a"), "invalid-request", "/name"),
    "a file that is not there": (wanted(data=["b.jsonl"]), "invalid-training", "/data/0"),
    "a dev file that is not there": (wanted(dev=["b.jsonl"]), "invalid-training", "/dev/0"),
    "a link out of the folder": (wanted(data=["link.jsonl"]), "invalid-training", "/data/0"),
    "an unknown setting": (
        wanted(config={"optimiser": {"learning": 1}}),
        "invalid-training",
        "/config/optimiser/learning",
    ),
    "a value out of range": (
        wanted(config={"optimiser": {"learning_rate": -1}}),
        "invalid-training",
        "/config/optimiser/learning_rate",
    ),
    "a setting of another stage": (
        wanted(config={"generation_top_k": 5}),
        "invalid-training",
        "/config/generation_top_k",
    ),
    "a second stage": (wanted(config={"stage": 2}), "invalid-training", "/config/stage"),
    "stage 2 from nothing": (wanted(stage=2), "invalid-training", "/checkpoint"),
    "stage 3 from nothing": (wanted(stage=3), "invalid-training", "/checkpoint"),
    "a control character in the base": (wanted(base="a\0"), "invalid-text", "/base"),
    "a control character in the checkpoint": (
        wanted(checkpoint="a\x1b"),
        "invalid-text",
        "/checkpoint",
    ),
}


@pytest.mark.parametrize(("body", "code", "field"), BAD.values(), ids=BAD)
def test_what_cannot_run_is_refused_at_once(
    client: TestClient, rows: Rows, body: dict[str, Any], code: str, field: str
) -> None:
    before = rows()
    response = client.post(TRAININGS, json=body)
    assert response.status_code == 422, response.text
    problem = response.json()
    assert problem["type"] == f"urn:clara:problem:{code}"
    assert problem["field"] == field
    assert rows() == before


@pytest.mark.parametrize(
    "name",
    ["../secret.jsonl", "/etc/passwd", "..", "", ".jsonl", "sub/../a.jsonl", "a.jsonl\0", "a.csv"],
)
def test_a_file_is_named_and_never_reached_by_a_path(
    client: TestClient, rows: Rows, name: str
) -> None:
    before = rows()
    response = client.post(TRAININGS, json=wanted(data=["a.jsonl", name]))
    assert response.status_code == 415
    assert response.json()["field"] == "/data/1"
    assert rows() == before


def test_every_missing_file_is_named(client: TestClient) -> None:
    problem = client.post(TRAININGS, json=wanted(data=["b.jsonl"], dev=["c.jsonl"])).json()
    assert [fault["field"] for fault in problem["errors"]] == ["/data/0", "/dev/0"]


def test_what_a_client_sent_is_not_sent_back_in_full(client: TestClient) -> None:
    response = client.post(TRAININGS, json=wanted(config={"seed": "x" * 100_000}))
    assert response.status_code == 422
    assert len(response.text) < 2_000


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_checkpoint_is_named_by_id_or_name_and_brings_its_base(
    client: TestClient, db: OpenDb, by: str
) -> None:
    with db.begin() as session:
        row = make_checkpoint(session, name="stage-one", path="/weights/1", base="/models/base")
    named = {"id": str(row.id), "name": row.name}[by]
    run_id = client.post(TRAININGS, json=wanted(stage=2, checkpoint=named)).json()["run_id"]
    with db() as session:
        inputs = session.get_one(Run, UUID(run_id)).inputs
    assert (inputs["checkpoint"], inputs["base"]) == ("/weights/1", "/models/base")


def test_a_checkpoint_is_a_folder_or_a_hub_name_too(
    client: TestClient, db: OpenDb, tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    for named in (str(folder), "apple/CLaRa-7B-Base/compression-16"):
        started = client.post(TRAININGS, json=wanted(stage=3, checkpoint=named))
        assert started.status_code == 202
        with db() as session:
            inputs = session.get_one(Run, UUID(started.json()["run_id"])).inputs
        assert inputs["checkpoint"] == named


@pytest.mark.parametrize("named", [str(UUID(int=1)), "nobody", "/nowhere", "a b/c"])
def test_an_unknown_checkpoint_is_not_found(client: TestClient, rows: Rows, named: str) -> None:
    before = rows()
    response = client.post(TRAININGS, json=wanted(stage=2, checkpoint=named))
    assert_problem(response, 404, "unknown-checkpoint", field="/checkpoint")
    assert rows() == before


def test_a_checkpoint_without_weights_is_refused(client: TestClient, db: OpenDb) -> None:
    with db.begin() as session:
        row = make_checkpoint(session, name="untrained", path=None)
    response = client.post(TRAININGS, json=wanted(stage=2, checkpoint=str(row.id)))
    assert_problem(response, 422, "invalid-training", field="/checkpoint")


def training(db: OpenDb, status: RunStatus = RunStatus.RUNNING, **values: Any) -> UUID:
    inputs = {"stage": 1, "config": {}, "data": ["a.jsonl"], "dev": [], "base": ""}
    inputs |= {"checkpoint": "", "name": "mine"}
    with db.begin() as session:
        return make_run(session, RunKind.TRAIN, status, inputs=inputs, **values).id


def test_a_training_tells_how_far_it_is(client: TestClient, db: OpenDb) -> None:
    details = {"loss": 2.5, "parts": {"answer": 2.4}, "tokens_per_s": 900.0, "seconds": 7.0}
    details |= {"seconds_left": 60.0, "scores": {"step": 10, "score": 2.2}}
    run_id = training(db, done=12, total=100, phase="training", details=details)
    found = client.get(f"{TRAININGS}/{run_id}").json()
    assert found["progress"] == {"step": 12, "steps": 100, "phase": "training", **details}
    assert (found["name"], found["stage"], found["status"]) == ("mine", 1, "running")
    assert found["checkpoint_id"] is None


def test_faults_of_its_data_are_told_with_the_failed_training(
    client: TestClient, db: OpenDb
) -> None:
    fault = {"file": "a.jsonl", "line": 3, "field": "/docs", "reason": "is empty"}
    error = {"code": "faulty-records", "message": "1 fault", "faults": [fault], "traceback": "x"}
    run_id = training(db, RunStatus.FAILED, error=error)
    found = client.get(f"{TRAININGS}/{run_id}").json()
    assert found["error"] == {"code": "faulty-records", "message": "1 fault", "faults": [fault]}


def test_trainings_are_listed_newest_first_without_other_runs(
    client: TestClient, db: OpenDb
) -> None:
    made = [str(training(db)) for _ in range(3)]
    with db.begin() as session:
        make_run(session, RunKind.QUERY)
    first = client.get(f"{TRAININGS}?limit=2").json()
    second = client.get(f"{TRAININGS}?limit=2&after={first['next']}").json()
    assert [one["id"] for one in first["trainings"] + second["trainings"]] == made[::-1]
    assert second["next"] is None


def test_what_is_no_training_is_not_found(client: TestClient, db: OpenDb) -> None:
    with db.begin() as session:
        other = make_run(session, RunKind.QUERY).id
    for nobody in (uuid4(), other):
        for path in ("", "/curves", "/curves.png"):
            response = client.get(f"{TRAININGS}/{nobody}{path}")
            assert_problem(response, 404, "unknown-run", field="run_id")


def step(number: int) -> dict[str, Any]:
    return {
        "number": number,
        "loss": 3.0 / number,
        "parts": {"answer": 3.0 / number},
        "rate": 1e-4,
        "gradient": 1.0,
        "places": 100,
        "seconds": 0.5,
        "at": 0.5 * number,
        "share": number / 10,
    }


def test_curves_are_json_and_a_picture_while_it_runs(
    client: TestClient, db: OpenDb, config: Settings
) -> None:
    run_id = training(db)
    folder = config.trainings / str(run_id)
    folder.mkdir()
    events = [{"begun": 0, "of": 10, "at": 0.0}, *map(step, range(1, 4))]
    events.append({"scored": 3, "at": 1.5, "score": 1.2, "wrong": 1.9, "best": True})
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    found = client.get(f"{TRAININGS}/{run_id}/curves").json()
    assert (found["of"], found["steps"], found["loss"]) == (10, [1, 2, 3], [3.0, 1.5, 1.0])
    assert found["dev"] == {"steps": [3], "score": [1.2], "wrong": [1.9]}
    picture = client.get(f"{TRAININGS}/{run_id}/curves.png")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")


def test_a_training_without_a_step_has_no_curves_yet(client: TestClient, db: OpenDb) -> None:
    run_id = training(db, RunStatus.QUEUED)
    for path in ("curves", "curves.png"):
        response = client.get(f"{TRAININGS}/{run_id}/{path}")
        problem = assert_problem(response, 409, "training-not-begun", field="run_id")
        assert "queued" in problem["detail"]
        assert "/training/" not in problem["detail"]


def test_a_training_is_cancelled_as_any_run(client: TestClient, db: OpenDb) -> None:
    for status in (RunStatus.QUEUED, RunStatus.RUNNING):
        run_id = training(db, status)
        assert client.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "cancelled"
        assert client.get(f"{TRAININGS}/{run_id}").json()["status"] == "cancelled"
