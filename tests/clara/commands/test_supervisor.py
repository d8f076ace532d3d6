"""Which processes are started again, and when the whole is given up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clara.commands import serve, supervisor
from clara.commands.supervisor import RESTARTS, Process, Running
from clara.errors import ServerFailed
from clara.settings import Settings


def ending_with(
    status: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Running, Process]:
    """A system of one process that ends at once with a status, again and again."""
    command = [sys.executable, "-c", f"print('the reason'); raise SystemExit({status})"]
    monkeypatch.setattr(serve, "argv", lambda *_: command)
    config = Settings(_env_file=None, home=home)
    process = supervisor._start("model-worker", config)
    return Running(config, [process]), process


def ended(process: Process) -> Process:
    process.popen.wait()
    return process


def test_a_process_that_ends_by_a_fault_again_and_again_ends_the_whole_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, process = ending_with(1, tmp_path, monkeypatch)
    for _ in range(RESTARTS):
        ended(process)
        assert running.tend() == ["model-worker"]
    ended(process)
    with pytest.raises(ServerFailed, match="the reason"):
        running.tend()


def test_a_process_that_ends_well_is_started_again_however_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, process = ending_with(0, tmp_path, monkeypatch)
    for _ in range(RESTARTS + 2):
        ended(process)
        assert running.tend() == ["model-worker"]
    ended(process)


def test_a_fault_long_after_the_last_one_is_the_first_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, process = ending_with(1, tmp_path, monkeypatch)
    process.restarts = RESTARTS
    process.since -= supervisor.STABLE_S
    ended(process)
    assert running.tend() == ["model-worker"]
    assert process.restarts == 1
    ended(process)


def test_a_killed_process_ended_by_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(serve, "argv", lambda *_: command)
    process = supervisor._start("beat", Settings(_env_file=None, home=tmp_path))
    process.restarts = RESTARTS
    process.popen.kill()
    assert ended(process).fails()
