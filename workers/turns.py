"""Whose turn it is to compute in bulk: one recompression at a time in a process.

The engine thread computes one batch after the other whoever asks; a second one would only hold a
task thread, and those are for questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_TURN = Lock()


@contextmanager
def turn() -> Iterator[bool]:
    """Whether it is ours for the length of the body; never waits."""
    ours = _TURN.acquire(blocking=False)
    try:
        yield ours
    finally:
        if ours:
            _TURN.release()
