"""Train runs on a real record, with a tiny model; the training itself is in this process."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Run, RunKind, RunStatus
from clara.errors import TrainingBusy, TrainingKilled
from clara.model import checkpoint as checkpoints
from clara.model.models import load_models
from clara.settings import Settings
from clara.training.events import Event, events
from clara.training.plan import Plan
from clara.training.progress import Trained
from clara.training.train import train
from tests.clara.training.conftest import config as stage_config
from tests.clara.training.files import FIVE, QA, write
from tests.tiny import tiny_base
from tests.workers.test_runs import queued, stored
from workers import bootstrap, runs, stopping, tasks, training, training_files

STEPS = 4


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def config(tmp_path: Path, base: Path) -> Settings:
    return Settings(_env_file=None, home=tmp_path / "home", base_model=str(base), device="cpu")


Launch = Callable[..., Trained]


def in_this_process(
    plan: Plan,
    *,
    on_event: Callable[[Event], None],
    stopped: Callable[[], bool],
    **_: Any,
) -> Trained:
    """What `launch` does, without the processes."""
    return train(plan, on_event=on_event, stopped=stopped)


@pytest.fixture(autouse=True)
def record(db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on this test's record, and its files."""
    monkeypatch.setattr(bootstrap, "database", lambda: db)
    monkeypatch.setattr(tasks, "settings", lambda: config)
    monkeypatch.setattr(tasks, "send", lambda *_: True)
    monkeypatch.setattr(training, "launch", in_this_process)
    monkeypatch.setattr(training, "TELL_S", 0.0)
    monkeypatch.setattr(runs, "POLL_S", 0.01)
    stopping._STOPPING.clear()
    config.training_files.mkdir(parents=True)
    records = [QA | {"id": f"q{i}", "docs": [text]} for i, text in enumerate(FIVE)]
    write(config.training_files / "train.jsonl", records)
    write(config.training_files / "dev.jsonl", records[:2])


def asked(db: OpenDb, **values: Any) -> UUID:
    length = {"max_steps": STEPS, "save_every": 2, "score_every": 2}
    inputs = {
        "stage": 1,
        "config": stage_config(1, length=length).as_dict(),
        "data": ["train.jsonl"],
        "dev": ["dev.jsonl"],
        "base": "",
        "checkpoint": "",
        "name": "mine",
    }
    return queued(db, kind=RunKind.TRAIN, inputs=inputs | values)


def registered(db: OpenDb) -> list[Checkpoint]:
    with db() as session:
        return list(session.scalars(select(Checkpoint)))


def test_a_training_ends_in_a_registered_checkpoint_that_loads(
    db: OpenDb, config: Settings, base: Path
) -> None:
    run_id = asked(db)
    tasks.train_stage(str(run_id))
    run = stored(db, run_id)
    assert run.status is RunStatus.SUCCEEDED, run.error
    assert (run.done, run.total, run.phase) == (STEPS, STEPS, "registering")
    (row,) = registered(db)
    assert run.result
    assert run.result["checkpoint_id"] == str(row.id)
    assert [entry["records"] for entry in run.result["data"]] == [len(FIVE)]
    assert (row.name, row.run_id, row.trained, row.active) == ("mine", run_id, True, False)
    assert row.path
    assert Path(row.path).parent == config.checkpoints.resolve()
    models = load_models(checkpoints.load(row.path), base=row.base, device="cpu")
    assert (models.fingerprint, models.weights_hash) == (row.fingerprint, row.weights_hash)
    (dev,) = row.scores.items()
    assert dev[0] == "dev dev (stage 1)"
    assert {"score", "wrong"} <= dev[1].keys()


def test_progress_tells_step_loss_speed_time_left_and_scores(db: OpenDb) -> None:
    run_id = asked(db)
    tasks.train_stage(str(run_id))
    details = stored(db, run_id).details
    assert details["loss"] > 0
    assert details["tokens_per_s"] > 0
    assert details["seconds_left"] == 0
    assert details["scores"]["step"] == STEPS
    assert details["records"] == len(FIVE)


def test_faults_end_the_run_by_line_and_field_before_a_model_is_touched(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "launch", lambda *_, **__: pytest.fail("a model was touched"))
    lines = [QA, QA | {"docs": []}, b"no json"] + [QA | {"answers": []}] * 30
    write(config.training_files / "train.jsonl", lines)
    run_id = asked(db)
    tasks.train_stage(str(run_id))
    run = stored(db, run_id)
    assert (run.status, run.attempts) == (RunStatus.FAILED, 1)
    assert run.error
    assert run.error["code"] == "faulty-records"
    faults = run.error["faults"]
    assert len(faults) == training_files.FIRST_FAULTS
    assert [(f["file"], f["line"], f["field"]) for f in faults[:2]] == [
        ("train.jsonl", 2, "/docs"),
        ("train.jsonl", 3, ""),
    ]
    assert registered(db) == []


def test_a_file_that_is_gone_ends_the_run(db: OpenDb, config: Settings) -> None:
    (config.training_files / "dev.jsonl").unlink()
    run_id = asked(db)
    tasks.train_stage(str(run_id))
    run = stored(db, run_id)
    assert run.status is RunStatus.FAILED
    assert run.error
    assert (run.error["code"], run.error["field"]) == ("invalid-training", "data")


def while_training(
    monkeypatch: pytest.MonkeyPatch, step: int, do: Callable[[], object]
) -> list[int]:
    """Have something happen after a step, and wait until it is noticed. Returns the steps."""
    seen: list[int] = []

    def launch(plan: Plan, *, on_event: Any, stopped: Any, **_: Any) -> Trained:
        def noticed(event: Event) -> None:
            on_event(event)
            if "number" in event:
                seen.append(event["number"])
            if event.get("number") == step:
                do()
                while not stopped():
                    pass

        return train(plan, on_event=noticed, stopped=stopped)

    monkeypatch.setattr(training, "launch", launch)
    return seen


def test_a_cancelled_training_takes_no_further_step(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = asked(db)

    def cancel() -> None:
        with db.begin() as session:
            assert runs.cancel(session, run_id)

    steps = while_training(monkeypatch, 3, cancel)
    tasks.train_stage(str(run_id))
    assert steps == [1, 2, 3]
    run = stored(db, run_id)
    assert (run.status, run.result, run.error) == (RunStatus.CANCELLED, None, None)
    assert registered(db) == []


def test_a_worker_that_is_told_to_stop_gives_the_training_back_to_go_on(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[UUID] = []
    monkeypatch.setattr(tasks, "send", lambda _, run_id: sent.append(run_id))
    run_id = asked(db)
    steps = while_training(monkeypatch, 3, stopping._STOPPING.set)
    tasks.train_stage(str(run_id))
    run = stored(db, run_id)
    assert (run.status, run.attempts, run.lease, sent) == (RunStatus.QUEUED, 0, None, [run_id])
    assert (run.done, run.total) == (3, STEPS)
    stopping._STOPPING.clear()
    monkeypatch.setattr(training, "launch", in_this_process)
    tasks.train_stage(str(run_id))
    assert stored(db, run_id).status is RunStatus.SUCCEEDED
    begun = [e["begun"] for e in events(training.folder_of(run_id, config)) if "begun" in e]
    assert begun == [0, 3]
    assert steps == [1, 2, 3]


def test_a_lost_worker_costs_no_attempt_once_a_state_was_saved(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = asked(db)
    counted: list[int] = []

    def dies(plan: Plan, *, on_event: Any, **_: Any) -> Trained:
        def noticed(event: Event) -> None:
            on_event(event)
            counted.append(stored(db, run_id).attempts)
            if event.get("number") == 3:
                raise TrainingKilled("ended by a signal")

        return train(plan, on_event=noticed)

    monkeypatch.setattr(training, "launch", dies)
    with db.begin() as session:
        session.execute(update(Run).values(attempts=1))
    tasks.train_stage(str(run_id))
    assert counted == [2, 2, 1, 1, 1]  # begun, two steps, scores, a third step
    assert stored(db, run_id).status is RunStatus.QUEUED


def test_a_training_goes_on_with_the_file_it_began_with(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = asked(db)
    while_training(monkeypatch, 2, stopping._STOPPING.set)
    tasks.train_stage(str(run_id))
    stopping._STOPPING.clear()
    newer = config.training_files / "newer"
    write(newer, [QA])
    newer.replace(config.training_files / "train.jsonl")
    (config.training_files / "dev.jsonl").unlink()
    monkeypatch.setattr(training, "launch", in_this_process)
    tasks.train_stage(str(run_id))
    run = stored(db, run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert run.details["records"] == len(FIVE)


def test_a_database_that_is_away_for_a_moment_costs_no_training(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = asked(db)
    real = runs.progress

    def away(*args: Any, **more: Any) -> None:
        if more.get("phase") == "training":
            raise OperationalError("", {}, Exception("the server is away"))
        real(*args, **more)

    monkeypatch.setattr(runs, "progress", away)
    tasks.train_stage(str(run_id))
    assert stored(db, run_id).status is RunStatus.SUCCEEDED


def test_the_training_of_a_lost_worker_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / training.LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(training, "PREDECESSOR_S", 0.0)
        with pytest.raises(TrainingBusy):
            training._await_predecessor(tmp_path, lambda: False)
        monkeypatch.setattr(training, "PREDECESSOR_S", 60.0)
        looks = iter([False, False])

        def ends_meanwhile() -> bool:
            if next(looks, True):
                fcntl.flock(held, fcntl.LOCK_UN)
            return False

        monkeypatch.setattr(training, "POLL_S", 0.0)
        training._await_predecessor(tmp_path, ends_meanwhile)
    training._await_predecessor(tmp_path, lambda: pytest.fail("nobody holds it"))


def test_the_lock_is_the_one_the_training_holds(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []

    def launch(plan: Plan, **_: Any) -> Trained:
        def look(event: Event) -> None:
            if "number" in event:
                with (plan.out / training.LOCK).open("a") as lock:
                    free.append(training._free(lock))

        return train(plan, on_event=look)

    monkeypatch.setattr(training, "launch", launch)
    tasks.train_stage(str(asked(db)))
    assert free == [False] * STEPS
