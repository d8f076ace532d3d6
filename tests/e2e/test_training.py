"""Trainings in real processes: through the API, past a killed worker, to a promoted checkpoint."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
from rich.console import Console

from clara.client import ApiProblem, Client
from clara.commands import promote
from clara.commands.demo import wait_until_ready
from clara.commands.supervisor import Process, Running, system
from clara.db.tables import ACTIVE
from clara.settings import Settings
from clara.training.launch import MAIN
from clara.types import SourceDocument
from tests.clara.training.files import FIVE, QA, write
from tests.e2e.test_document_to_citation import free_port, until
from tests.tiny import tiny_base, tiny_encoder

QUIET = Console(quiet=True)
FOREVER = 1_000_000
LATENTS = {"compr_rate": 16, "doc_max_length": 64}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, servers_home: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    config = Settings(
        home=servers_home / "trainings",
        api_port=free_port(),
        flower_port=free_port(),
        base_model=str(tiny_base(folder / "base")),
        sentence_encoder=str(tiny_encoder(folder / "encoder")),
        device="cpu",
        doc_max_length=64,
        reconcile_s=1.0,
        run_lease_s=3.0,
        torch_threads=1,
        training_threads=1,
        max_answer_tokens=4,
        min_score=-1.0,
        agreement_margin=1.0,  # a random model agrees with itself by chance
    )
    with system(config) as running, Client(running.api) as client:
        wait_until_ready(running, client)
        with tended(running):
            yield running


@contextmanager
def tended(running: Running) -> Iterator[None]:
    """What has ended is started again, as `clara up` does."""
    done = Event()

    def tend() -> None:
        while not done.wait(0.2):
            running.tend()

    with ThreadPoolExecutor(1) as pool:
        tending = pool.submit(tend)
        try:
            yield
        finally:
            done.set()
            tending.result()


@pytest.fixture
def client(running: Running, tmp_path: Path) -> Iterator[Client]:
    """With a file of records uploaded."""
    records = [QA | {"id": f"q{i}", "docs": [text]} for i, text in enumerate(FIVE)]
    content = write(tmp_path / "records.jsonl", records).read_bytes()
    with Client(running.api) as client:
        client._call("PUT", "/v1/trainings/data/records.jsonl", content=content)
        yield client


def start(client: Client, name: str, *, steps: int, **values: Any) -> str:
    config = {
        "latents": LATENTS,
        "lora_r": 2,
        "dtype": "float32",
        "optimiser": {"learning_rate": 0.01, "batch_size": 2},
        "length": {"epochs": 1000, "max_steps": steps, "save_every": 50, "score_every": 2},
    }
    if steps == FOREVER:
        config["length"] = {"epochs": 1000, "save_every": 5, "score_every": 0}
        config["optimiser"] = {"learning_rate": 0.0001, "batch_size": 1}
    body = {"stage": 1, "data": ["records.jsonl"], "name": name, "config": config, **values}
    return str(client._call("POST", "/v1/trainings", json=body)["run_id"])


def training(client: Client, run_id: str) -> Any:
    return client._call("GET", f"/v1/trainings/{run_id}")


def worker_of(running: Running, name: str) -> Process:
    return next(process for process in running.processes if process.name == name)


def trainers(run_id: str) -> list[psutil.Process]:
    """Processes that train in the folder of a run, whoever started them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if MAIN in line and any(run_id in word for word in line):
            found.append(process)
    return found


def test_a_training_survives_its_worker_and_stops_when_it_is_cancelled(
    client: Client, running: Running
) -> None:
    run_id = start(client, "endless", steps=FOREVER)
    until(lambda: training(client, run_id)["progress"]["step"] > 10)
    assert all(process.nice() >= 10 for process in trainers(run_id))
    worker = worker_of(running, "train-worker").popen.pid
    os.kill(worker, signal.SIGKILL)
    before = training(client, run_id)["progress"]["step"]
    until(lambda: client._call("GET", f"/v1/trainings/{run_id}/curves")["resumed"])
    until(lambda: training(client, run_id)["progress"]["step"] > before)
    found = training(client, run_id)
    assert (found["status"], found["progress"]["phase"]) == ("running", "training")
    assert client._call("GET", f"/v1/trainings/{run_id}/curves")["resumed"][0] >= 10

    client._call("POST", f"/v1/runs/{run_id}/cancel")
    until(lambda: not trainers(run_id))
    found = training(client, run_id)
    assert (found["status"], found["checkpoint_id"]) == ("cancelled", None)
    assert worker_of(running, "train-worker").popen.pid != worker


def test_a_training_ends_in_a_checkpoint_that_is_promoted_and_answers(
    client: Client, running: Running
) -> None:
    """No worker starts again: the collection is recompressed and switched while it answers."""
    workers = pids(running)
    client.create_collection("shop", exist_ok=True)
    client.write_documents("shop", [SourceDocument("Bees dance on the comb.", external_id="b")])
    run_id = start(client, "mine", steps=4, dev=["records.jsonl"])
    until(lambda: training(client, run_id)["status"] not in ACTIVE)
    found = training(client, run_id)
    assert found["status"] == "succeeded", found["error"]
    row = client._call("GET", f"/v1/checkpoints/{found['checkpoint_id']}")
    assert (row["name"], row["run_id"], row["active"]) == ("mine", run_id, False)
    assert row["scores"]["dev records (stage 1)"]["score"] > 0

    promote.promote(client, "mine", QUIET)
    until(lambda: answered_by(client) == row["fingerprint"])
    cited = asked(client)
    assert cited["checkpoint"]["name"] == "mine"
    assert cited["checkpoint"]["trained"] is True
    assert cited["mode"] == "latent"
    assert cited["citations"][0]["external_id"] == "b"
    assert cited["generation"] == 2
    assert pids(running) == workers


def test_another_generator_over_the_same_latents_serves_with_nothing_recompressed(
    client: Client, running: Running, tmp_path: Path
) -> None:
    workers = pids(running)
    (serving,) = [row for row in client.checkpoints() if row["active"]]
    louder = copied(Path(serving["path"]), tmp_path / "louder")
    with pytest.raises(ApiProblem, match="never evaluated"):
        promote.promote(client, louder, QUIET)
    before = client.runs(kind="compress"), client.runs(kind="recompress")
    promote.promote(client, louder, QUIET, force="to hear it")
    until(lambda: asked(client)["checkpoint"]["name"] == "louder")
    assert asked(client)["checkpoint"]["fingerprint"] == serving["fingerprint"]
    assert asked(client)["generation"] == 3
    assert (client.runs(kind="compress"), client.runs(kind="recompress")) == before
    assert pids(running) == workers


def pids(running: Running) -> dict[str, int]:
    """Of the processes that answer and index."""
    names = ("model-worker", "cpu-worker")
    return {name: worker_of(running, name).popen.pid for name in names}


def answered_by(client: Client) -> str | None:
    """Fingerprint of the checkpoint that answers from latents; None while it cannot yet."""
    with suppress(LookupError):
        return str(asked(client)["checkpoint"]["fingerprint"])
    return None


def asked(client: Client) -> Any:
    """An answer from latents. Raises LookupError while there are none."""
    body = {"collection": "shop", "question": "Who dances?", "mode": "latent"}
    path = f"/v1/questions/{client._call('POST', '/v1/questions', json=body)['id']}"
    until(lambda: client._call("GET", path, params={"wait": 5})["status"] not in ACTIVE)
    state = client._call("GET", path)
    if state["answer"] is None:
        assert state["error"]["code"] == "latents-not-ready", state["error"]
        raise LookupError
    return state["answer"]


def copied(folder: Path, target: Path) -> str:
    """The checkpoint with another weight, so that it is another checkpoint."""
    from dataclasses import replace

    from clara.model import checkpoint as checkpoints

    found = checkpoints.load(folder)
    adapter = {key: tensor * 1.5 for key, tensor in found.adapters["generator"].items()}
    adapters = {**found.adapters, "generator": adapter}
    changed = replace(found, name=target.name, adapters=adapters)
    return str(checkpoints.save(changed, target))


def test_faulty_records_are_told_by_line(client: Client) -> None:
    client._call("PUT", "/v1/trainings/data/bad.jsonl", content=b'{"id": "1"}\nnothing\n')
    run_id = start(client, "bad", steps=4, data=["bad.jsonl"])
    until(lambda: training(client, run_id)["status"] == "failed")
    error = training(client, run_id)["error"]
    assert error["code"] == "faulty-records"
    assert {1, 2} <= {fault["line"] for fault in error["faults"]}
