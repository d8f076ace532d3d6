"""A stuck worker ends itself: the rules, and real processes that are stuck."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from clara.embedded import client_url
from clara.settings import Settings
from workers import canary as module
from workers.app import app, configure
from workers.canary import ALIVE_S, LOST, LOST_S, QUIET_S, Canary
from workers.watchdog import STUCK, Watchdog, heartbeat

NODE = "w@here"
PATIENCE_S = 60.0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def life(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Canary:
    """A canary whose broker takes everything."""
    monkeypatch.setattr(Canary, "_send", lambda _: True)
    return Canary(NODE, seen=clock(), sent=clock())


def look_for(life: Canary, clock: Clock, seconds: float, *, busy: bool = False) -> None:
    for _ in range(int(seconds / 5)):
        clock.now += 5
        life.look(busy=busy)


def test_a_worker_without_a_task_is_lost_after_a_while(life: Canary, clock: Clock) -> None:
    look_for(life, clock, ALIVE_S - 5)
    assert life.alive()
    look_for(life, clock, 10)
    assert not life.alive()
    assert not life.lost()
    look_for(life, clock, LOST_S)
    assert life.lost()
    assert life.astray >= LOST
    life.sing()
    assert (life.alive(), life.lost(), life.astray) == (True, False, 0)


def test_where_tasks_begin_no_canary_is_sent(life: Canary, clock: Clock) -> None:
    for _ in range(100):
        look_for(life, clock, QUIET_S - 5)
        life.sing()
    assert (life.alive(), life.astray) == (True, 0)


def test_a_worker_whose_threads_are_all_taken_is_alive(life: Canary, clock: Clock) -> None:
    """A training takes hours, and no other task begins meanwhile."""
    look_for(life, clock, 7200, busy=True)
    assert (life.alive(), life.lost()) == (True, False)


def test_a_broker_that_is_away_is_no_fault_of_the_worker(
    life: Canary, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Canary, "_send", lambda _: False)
    look_for(life, clock, 7200)
    assert (life.alive(), life.lost()) == (False, False)
    monkeypatch.setattr(Canary, "_send", lambda _: True)
    look_for(life, clock, QUIET_S * (LOST - 2))
    assert not life.lost()  # it has a little while to connect again


def test_a_canary_lies_on_the_queue_of_its_worker(broker_url: str) -> None:
    configure(app, Settings(redis_url=broker_url))
    life = Canary(NODE)
    with redis.Redis.from_url(client_url(broker_url)) as broker:
        broker.delete(life.queue)
        assert life._send()
        assert broker.llen(life.queue) == 1
        broker.delete(life.queue)
    configure(app, Settings(redis_url="redis://127.0.0.1:1/0"))
    assert not life._send()


@pytest.fixture
def watchdog(life: Canary, tmp_path: Path) -> Watchdog:
    return Watchdog(life, Settings(home=tmp_path, engine_task_s=30), threads=2)


def engine_at(seconds: float) -> Any:
    return SimpleNamespace(busy_s=lambda: seconds)


def test_the_heartbeat_is_as_old_as_the_life_of_the_worker(
    watchdog: Watchdog, life: Canary, clock: Clock, tmp_path: Path
) -> None:
    file = heartbeat(Settings(home=tmp_path), NODE)
    assert watchdog.look(active=0, engine=None) is None
    assert file.exists()
    file.unlink()
    look_for(life, clock, ALIVE_S + 5)
    assert watchdog.look(active=1, engine=engine_at(29)) is None
    assert not file.exists()
    assert watchdog.look(active=2, engine=None) is None  # all threads are taken
    assert file.exists()


def test_a_worker_that_ends_well_leaves_no_heartbeat(watchdog: Watchdog, tmp_path: Path) -> None:
    watchdog.look(active=0, engine=None)
    watchdog.leave()
    watchdog.leave()
    assert list(heartbeat(Settings(home=tmp_path), NODE).parent.iterdir()) == []


def test_an_engine_that_works_too_long_on_one_task_is_stuck(watchdog: Watchdog) -> None:
    why = watchdog.look(active=0, engine=engine_at(31))
    assert why
    assert "31 s" in why
    assert "CLARA_ENGINE_TASK_S" in why


def test_a_worker_that_takes_no_message_is_stuck(
    watchdog: Watchdog, life: Canary, clock: Clock
) -> None:
    look_for(life, clock, LOST_S + QUIET_S)
    why = watchdog.look(active=1, engine=None)
    assert why
    assert "no message arrives" in why


WORKER = """
import sys
from types import SimpleNamespace
from workers import canary, watchdog
from workers.app import app
watchdog.LOOK_S, canary.QUIET_S, canary.LOST_S, canary.LOST = 0.1, 0.3, 2.0, 3
{patch}
app.worker_main(["worker", "-n", "w@here", "-Q", "upkeep", "--pool", "threads", "-c", "2",
                 "--without-mingle", "--without-gossip", "--loglevel", "WARNING"])
"""


@contextmanager
def worker(broker_url: str, home: Path, patch: str = "") -> Iterator[subprocess.Popen[str]]:
    config = Settings(_env_file=None, redis_url=broker_url, home=home)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER.format(patch=patch)],
        env=os.environ | config.variables(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def last_words(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=PATIENCE_S)[1]


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.05)


def test_a_worker_that_consumes_no_more_ends_itself(broker_url: str, tmp_path: Path) -> None:
    configure(app, Settings(redis_url=broker_url))
    file = heartbeat(Settings(home=tmp_path), NODE)
    with worker(broker_url, tmp_path) as process:
        until(file.exists)
        for _ in range(2):  # it stays well for longer than it may be lost
            file.unlink()
            until(file.exists)
            time.sleep(1.2)
        assert process.poll() is None
        for queue in ("upkeep", f"canary.{NODE}"):
            app.control.cancel_consumer(queue, destination=[NODE], reply=True, timeout=5)
        said = last_words(process)
        assert process.returncode == STUCK
        assert "no message arrives any more" in said
        assert "most recent call first" in said


def test_a_worker_with_a_stuck_engine_ends_itself(broker_url: str, tmp_path: Path) -> None:
    stuck = "watchdog.bootstrap.started_engine = lambda: SimpleNamespace(busy_s=lambda: 1e6)"
    with worker(broker_url, tmp_path, stuck) as process:
        said = last_words(process)
        assert process.returncode == STUCK
        assert "the engine works on one task" in said


def test_a_process_in_which_python_stands_still_is_ended(tmp_path: Path) -> None:
    """A call into a library that keeps the interpreter's lock, and does not come back."""
    code = (
        "import ctypes; from threading import Thread; from types import SimpleNamespace;"
        "from workers import watchdog; watchdog.LOOK_S, watchdog.STALL_S = 0.1, 1.0;"
        "dog = SimpleNamespace(look=lambda **_: None);"
        "Thread(target=watchdog._watch, args=(dog,), daemon=True).start();"
        "import time; time.sleep(1.5); print('went on', flush=True);"
        "ctypes.PyDLL(None).sleep(600)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | Settings(_env_file=None, home=tmp_path).variables(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout == "went on\n"
    assert done.returncode != 0
    assert "Timeout" in done.stderr
