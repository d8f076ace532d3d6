"""The process that trains, with another training in its place: no torch is loaded here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clara.training.config import from_dict
from clara.training.outcome import CANCELLED, DONE, FAILED
from clara.training.plan import Plan

PROGRAM = """
import sys
from clara.errors import Cancelled
from clara.training import main

def train(plan, stop):
    print("training", flush=True)
    {body}

main._train = train
sys.exit(main.main(sys.argv[1:]))
"""
UNTIL_STOPPED = "stop.wait(); raise Cancelled('stopped at step 3')"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    made = Plan(from_dict({"stage": 1}), data=(Path("a.jsonl"),), out=tmp_path / "out")
    path = tmp_path / "out" / "plan.json"
    path.parent.mkdir()
    path.write_text(json.dumps(made.as_dict()))
    return path


def start(plan: Path, body: str, *options: str) -> subprocess.Popen[str]:
    """A process that is training."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body), str(plan), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "training\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_between_two_steps(plan: Path, number: signal.Signals) -> None:
    child = start(plan, UNTIL_STOPPED)
    child.send_signal(number)
    child.communicate()
    assert child.returncode == CANCELLED
    assert error(plan)["code"] == "cancelled"
    assert error(plan)["message"] == "stopped at step 3"


def test_it_does_not_outlive_the_one_who_started_it(plan: Path) -> None:
    child = start(plan, UNTIL_STOPPED, "--leave-with-starter")
    _, logged = child.communicate()  # closes its standard input
    assert child.returncode == CANCELLED
    assert "whoever started this training is gone" in logged


def test_started_by_hand_it_needs_nobody(plan: Path) -> None:
    child = start(plan, "pass")
    child.communicate()
    assert child.returncode == DONE
    assert not (plan.parent / "error.json").exists()


def test_a_fault_is_kept_with_its_traceback_and_logged(plan: Path) -> None:
    child = start(plan, "raise KeyError('nowhere')")
    _, logged = child.communicate()
    assert child.returncode == FAILED
    assert error(plan)["code"] == "training-failed"
    assert error(plan)["message"] == "KeyError: 'nowhere'"
    assert "in train" in error(plan)["traceback"]
    assert "KeyError: 'nowhere'" in logged


def error(plan: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((plan.parent / "error.json").read_text())
    return found
