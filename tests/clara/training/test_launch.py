"""Trainings in processes of their own; starting one costs seconds, so few tests start real ones."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from clara.errors import (
    Cancelled,
    DiskFull,
    InvalidDataset,
    InvalidTraining,
    TrainingFailed,
    TrainingKilled,
)
from clara.training import launch as launching
from clara.training.events import Event, events
from clara.training.launch import MAIN, command, configuration, launch
from clara.training.outcome import write_error
from clara.training.plan import Plan
from clara.training.train import train
from tests.clara.training.plans import MakePlan, learned, make_plan, steps

__all__ = ["make_plan"]


def test_a_training_that_was_killed_ends_as_one_that_was_not(make_plan: MakePlan) -> None:
    # many steps, so that the signal does not come too late
    changes: dict[str, Any] = {"dropout": 0.1, "length": {"max_steps": 40, "save_every": 4}}
    whole, plan = make_plan("whole", **changes), make_plan(**changes)
    train(whole)
    pid = 0

    def on_event(event: Event) -> None:
        nonlocal pid
        pid = event.get("pid", pid)
        if event.get("number") == 6:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainingKilled, match=r"(?s)by SIGKILL.*out-of-memory killer") as caught:
        launch(plan, on_event=on_event, poll_s=0.01, threads=1)
    assert "at step" in caught.value.message
    assert "accelerate" not in caught.value.message
    assert train(plan).progress.step == 40
    assert len([event for event in events(plan.out) if "begun" in event]) == 2
    for mine, other in zip(steps(plan.out), steps(whole.out), strict=True):
        assert mine["number"] == other["number"]
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-6)
    for name, tensor in learned(whole.out).items():
        assert torch.allclose(learned(plan.out)[name], tensor, atol=1e-6, rtol=0), name


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this torch has no gloo",
)
def test_two_processes_train_as_one_does_and_stop_together(make_plan: MakePlan) -> None:
    # small passes, so that the two have several of them, not equally many, some of text alone
    changes: dict[str, Any] = {
        "text_share": 0.5,
        "optimiser": {"batch_size": 5, "micro_tokens": 300},
        "length": {"max_steps": 60, "save_every": 1000},
    }
    alone, plan = make_plan("alone", **changes), make_plan(**changes)
    seen: list[Event] = []
    with pytest.raises(Cancelled, match="cancelled after step"):
        launch(
            plan,
            processes=2,
            on_event=seen.append,
            stopped=lambda: any(event.get("number") == 3 for event in seen),
            poll_s=0.01,
            threads=1,
        )
    assert seen[0]["processes"] == 2
    done = len(steps(plan.out))
    with pytest.raises(Cancelled):
        train(alone, stopped=lambda: len(steps(alone.out)) == done)
    for mine, other in zip(steps(plan.out), steps(alone.out), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert mine["gradient"] == pytest.approx(other["gradient"], rel=1e-2)
        assert mine["places"] == other["places"]
    for name, tensor in learned(alone.out).items():
        assert torch.allclose(learned(plan.out)[name], tensor, atol=1e-3), name


# From here on other programs stand in for the training: what counts is how they end.

Stand = Callable[[str], None]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Run a Python program in place of accelerate; it is told the training's folder."""

    def use(program: str) -> None:
        def argv(plan: Plan, *_: object) -> Sequence[str]:
            return [sys.executable, "-c", program, str(plan.out), MAIN]

        monkeypatch.setattr(launching, "command", argv)

    return use


def test_a_fault_of_the_process_is_told_with_its_last_words(
    make_plan: MakePlan, stand_in: Stand
) -> None:
    stand_in("import sys; print('before'); sys.exit(7)")
    with pytest.raises(TrainingFailed, match=r"ended with status 7; its last words:\nbefore"):
        launch(make_plan(), poll_s=0.01)


def test_an_error_of_the_training_has_its_class_here_too(
    make_plan: MakePlan, stand_in: Stand
) -> None:
    plan = make_plan()
    stand_in("import sys, json, pathlib as p; (p.Path(sys.argv[1]) / 'error.json').write_text("
             "json.dumps({'code': 'invalid-dataset', 'message': 'line 3', 'field': 'a:3'}));"
             "sys.exit(1)")  # fmt: skip
    with pytest.raises(InvalidDataset, match="line 3") as caught:
        launch(plan, poll_s=0.01)
    assert caught.value.field == "a:3"


def test_an_error_of_an_earlier_start_is_not_told_again(
    make_plan: MakePlan, stand_in: Stand
) -> None:
    plan = make_plan()
    write_error(plan.out, InvalidTraining("earlier"))
    stand_in("raise SystemExit(9)")
    with pytest.raises(TrainingFailed, match="status 9"):
        launch(plan, poll_s=0.01)


def test_of_several_processes_the_one_that_was_killed_is_the_cause(
    make_plan: MakePlan, stand_in: Stand
) -> None:
    plan = make_plan()
    stand_in("import sys, pathlib; from clara.training.outcome import write_error;"
             "write_error(pathlib.Path(sys.argv[1]), RuntimeError('connection closed by peer'));"
             "print('failed (exitcode: -9) local_rank: 1'); sys.exit(1)")  # fmt: skip
    with pytest.raises(TrainingKilled, match="by SIGKILL"):
        launch(plan, poll_s=0.01)


def test_a_launcher_that_is_killed_leaves_no_process_behind(
    make_plan: MakePlan, stand_in: Stand
) -> None:
    plan = make_plan()
    stand_in("import os, subprocess, sys, time, signal, pathlib as p;"
             "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
             "(p.Path(sys.argv[1]) / 'child').write_text(str(c.pid));"
             "os.kill(os.getpid(), signal.SIGSEGV)")  # fmt: skip
    with pytest.raises(TrainingKilled, match="by SIGSEGV"):
        launch(plan, poll_s=0.01)
    assert _gone(int((plan.out / "child").read_text()))


def test_a_training_that_does_not_stop_is_killed_after_its_grace(
    make_plan: MakePlan, stand_in: Stand
) -> None:
    stand_in("import signal, subprocess, sys, time;"
             "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")  # fmt: skip
    with pytest.raises(Cancelled, match="took too long to end and was killed"):
        launch(make_plan(), stopped=lambda: True, poll_s=0.01, grace_s=0.1)


def test_a_caller_that_fails_takes_the_training_with_it(
    make_plan: MakePlan, stand_in: Stand
) -> None:
    plan = make_plan()
    stand_in("import os, sys, time, pathlib as p; o = p.Path(sys.argv[1]);"
             "(o / 'child').write_text(str(os.getpid()));"
             "(o / 'log.jsonl').write_text('{\"number\": 1}\\n'); time.sleep(600)")  # fmt: skip

    def fails(_: Event) -> None:
        raise KeyError("display")

    with pytest.raises(KeyError):
        launch(plan, on_event=fails, poll_s=0.01)
    assert _gone(int((plan.out / "child").read_text()))


def test_a_disk_too_full_for_an_error_is_told_all_the_same(
    make_plan: MakePlan, stand_in: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("raise SystemExit(1)")
    monkeypatch.setattr(launching, "LEAST_ROOM", 2**62)
    with pytest.raises(DiskFull, match="no room left"):
        launch(make_plan(), poll_s=0.01)


def test_what_cannot_run_starts_no_process(make_plan: MakePlan) -> None:
    plan = make_plan(options={"base": ""})
    with pytest.raises(InvalidTraining, match="no base model is given"):
        launch(plan)
    assert not plan.out.exists()


@pytest.mark.parametrize(
    ("device", "processes", "wanted"),
    [
        ("cpu", 1, {"distributed_type": "NO", "use_cpu": True}),
        ("cpu", 2, {"distributed_type": "MULTI_GPU", "use_cpu": True, "num_processes": 2}),
        ("cuda", 1, {"distributed_type": "NO", "use_cpu": False, "gpu_ids": "all"}),
        ("cuda:3", 1, {"gpu_ids": "3"}),
        ("auto", 8, {"distributed_type": "MULTI_GPU", "num_processes": 8, "gpu_ids": "all"}),
    ],
)
def test_accelerate_is_told_devices_and_processes(
    make_plan: MakePlan, device: str, processes: int, wanted: dict[str, Any]
) -> None:
    found = configuration(make_plan(options={"device": device}), processes)
    assert found["mixed_precision"] == "no"
    assert {key: found[key] for key in wanted} == wanted


def test_a_configuration_of_the_users_own_decides_unless_told_otherwise(
    make_plan: MakePlan,
) -> None:
    plan, own = make_plan(), Path("hosts.yaml")
    argv = command(plan, None, own, 3)
    assert argv[argv.index("--config_file") + 1] == "hosts.yaml"
    assert "--num_processes" not in argv
    assert argv[argv.index("--mixed_precision") + 1] == "no"
    argv = command(plan, 4, own, 3)
    assert argv[argv.index("--num_processes") + 1] == "4"
    assert argv[argv.index("--num_cpu_threads_per_process") + 1] == "3"


def _gone(pid: int) -> bool:
    """Whether a process ends; whoever inherited it may not have collected it yet."""
    for _ in range(1000):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False
