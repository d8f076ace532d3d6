"""Whether this process is about to end: long work gives its run back then, to go on elsewhere."""

from __future__ import annotations

from threading import Event
from typing import Any

from celery.signals import worker_shutting_down

_STOPPING = Event()


def stopping() -> bool:
    """Whether this process was told to stop: polled between batches and steps."""
    return _STOPPING.is_set()


def wait(seconds: float) -> bool:
    """Sleep, but not longer than until this process is told to stop. Returns whether it was."""
    return _STOPPING.wait(seconds)


def stop() -> None:
    """Take no more messages, finish or give back what is in hand, and end well.

    Whatever started this process starts it again.
    """
    from celery.worker import state

    _STOPPING.set()
    state.should_stop = 0  # as the handler of SIGTERM does; the number is the exit status


@worker_shutting_down.connect
def _told(**_: Any) -> None:
    _STOPPING.set()
