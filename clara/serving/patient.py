"""The engine for whoever can wait: everything it submits comes after questions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

from clara.pipeline.asking import Answering

if TYPE_CHECKING:
    from clara.serving.engine import Engine

T = TypeVar("T")


class _Patient:
    """An engine on which nothing is urgent."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, task: Callable[[], T], *, urgent: bool) -> Future[T]:  # noqa: ARG002
        """As `Engine.submit`, never urgent."""
        return self._engine.submit(task, urgent=False)


def patient(answering: Answering) -> Answering:
    """What answering needs, for questions nobody waits for: those of users go first.

    A user's question then waits for one task of these at most, as it does for a batch of bulk work.
    """
    engine = cast("Engine", _Patient(answering.engine))
    return replace(answering, engine=engine, encoder=replace(answering.encoder, engine=engine))
