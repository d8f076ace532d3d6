"""Ends a worker that is stuck, for whatever started it to start it again.

Threads cannot be ended, so a process is what ends: its leases run out, and other workers take its
runs. Three things are looked at: that the engine's task comes to an end, that messages are still
taken (`workers.canary`), and that Python itself goes on.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

from celery.signals import worker_ready

from clara.serving.engine import Engine
from clara.settings import Settings, settings
from workers import bootstrap, canary, stopping
from workers.canary import Canary

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Seconds between two looks."""

STALL_S = 300.0
"""Seconds that no Python may run before the process is ended: a call into a library holds the
interpreter and does not come back."""

STUCK = 70
"""Exit status of a process that ended itself."""


class Watchdog:
    """Looks at one worker again and again."""

    def __init__(self, life: Canary, config: Settings, *, threads: int) -> None:
        """Watch a worker of so many task threads."""
        self._life, self._threads = life, threads
        self._bound_s = config.engine_task_s
        self._heartbeat = heartbeat(config, life.name)

    def look(self, *, active: int, engine: Engine | None) -> str | None:
        """One look. Returns why the worker is stuck, or None.

        Args:
            active: tasks in hand.
            engine: of this process, where it has one.
        """
        self._life.look(busy=active >= self._threads)
        if engine is not None and engine.busy_s() > self._bound_s:
            return (
                f"the engine works on one task for {engine.busy_s():.0f} s; "
                f"the limit is {self._bound_s:.0f} s (CLARA_ENGINE_TASK_S)"
            )
        if self._life.lost():
            return "no message arrives any more, though the broker takes them"
        if self._life.alive():
            self._heartbeat.parent.mkdir(parents=True, exist_ok=True)
            self._heartbeat.touch()
        return None

    def leave(self) -> None:
        """The worker ends well: it leaves no heartbeat behind."""
        self._heartbeat.unlink(missing_ok=True)


def heartbeat(config: Settings, name: str) -> Path:
    """File that is touched while a worker is well: its age is its health."""
    return config.home / "health" / name


def _watch(watchdog: Watchdog) -> None:
    while not stopping.wait(LOOK_S):
        faulthandler.dump_traceback_later(STALL_S, exit=True, file=_stderr())
        try:
            stuck = watchdog.look(active=_active(), engine=bootstrap.started_engine())
        except OSError:
            log.warning("the watchdog could not look", exc_info=True)
            continue
        if stuck:
            end(stuck)
    faulthandler.cancel_dump_traceback_later()
    watchdog.leave()


def end(why: str) -> None:
    """End this process at once, with the stacks of its threads in the log."""
    log.critical("this worker is stuck and ends itself: %s", why)
    faulthandler.dump_traceback(file=_stderr())
    logging.shutdown()
    os._exit(STUCK)


def _stderr() -> TextIO:
    """The real one: Celery puts a logger in its place, which has no file."""
    assert sys.__stderr__ is not None  # noqa: S101 - only a program without a console has none
    return sys.__stderr__


def _active() -> int:
    from celery.worker import state

    return len(state.active_requests)


@worker_ready.connect
def _start(sender: Any, **_: Any) -> None:
    life = canary.here()
    if life is None:
        return
    watchdog = Watchdog(life, settings(), threads=sender.pool.limit)
    life.sing()
    Thread(target=_watch, args=(watchdog,), name="watchdog", daemon=True).start()
