"""Whether this process is about to end: long work gives its run back then, to go on elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Callable
from math import inf
from threading import Event
from time import monotonic
from types import FrameType
from typing import Any

from celery.signals import worker_ready, worker_shutting_down

FINISH_S = 5.0
"""Seconds that work in hand, such as a question, may go on to its end after the process was told to
stop; what takes longer is given back."""


class _Told(Event):
    """That the process should stop, and since when."""

    at = inf

    def set(self) -> None:
        """The first time counts."""
        if not self.is_set():
            self.at = monotonic()
            super().set()

    def clear(self) -> None:
        """As if nothing had been said."""
        super().clear()
        self.at = inf


_STOPPING = _Told()


def stopping() -> bool:
    """Whether this process was told to stop: polled between batches and steps."""
    return _STOPPING.is_set()


def overdue() -> bool:
    """Whether it was told so long ago that even a question is given back."""
    return monotonic() - _STOPPING.at > FINISH_S


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


@worker_ready.connect
def _listen(**_: Any) -> None:
    """Be told first: Celery's soft shutdown (SIGINT, SIGQUIT) sleeps before it tells anybody."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, _telling(signal.getsignal(number)))


def _telling(before: Any) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        _STOPPING.set()
        if callable(before):
            before(number, frame)

    return handle
