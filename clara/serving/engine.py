"""The one thread that owns the models: questions first, compression batch by batch.

Everything that computes with torch in a process belongs on it, loading and the sentence encoder
included. OpenMP keeps a team of threads for each thread that ever computed; with a second team
there are more threads than cores, its waits turn into sleeps, and decoding took 1.5 to 1.9 times as
long (BENCHMARKS.md, threads).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from threading import Condition, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from clara.errors import Cancelled, EngineClosed

if TYPE_CHECKING:
    from torch import Tensor

    from clara.model.compressor import Batch, Compressor

T = TypeVar("T")


class Engine:
    """Runs callables one at a time, urgent ones before bulk ones, each in order of arrival.

    Other threads wait on futures; nothing but this thread touches a model. The thread is a daemon:
    a process that forgets `close` still ends.

    """

    def __init__(self, name: str = "clara-engine") -> None:
        self._urgent: deque[Callable[[], None]] = deque()
        self._bulk: deque[Callable[[], None]] = deque()
        self._pending: set[Future[Any]] = set()
        self._change = Condition()
        self._closed = False
        self._began: float | None = None
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], T], *, urgent: bool) -> Future[T]:
        """Queue `task` for the engine thread; its result or exception is the future's.

        Args:
            task: keeps the engine for itself while it runs; make it short.
            urgent: before everything that is not; for questions.
        Raises:
            EngineClosed: after `close`.
            RuntimeError: from the engine thread itself, which would wait for itself.
        """
        if current_thread() is self._thread:
            raise RuntimeError("the engine thread cannot wait for its own work")
        future: Future[T] = Future()
        with self._change:
            if self._closed:
                raise EngineClosed("the engine is closed", remedy="Start another one")
            (self._urgent if urgent else self._bulk).append(lambda: _settle(future, task))
            self._pending.add(future)
            self._change.notify()
        future.add_done_callback(self._forget)
        return future

    def compress(
        self,
        compressor: Compressor,
        texts: Sequence[str],
        should_stop: Callable[[], bool] | None = None,
    ) -> list[Tensor]:
        """One latent (rows, width) per text, in the order of the texts.

        Each batch is a task of its own, so a question waits for one batch at most.

        Raises:
            EmptyText, TextTooLong: before anything is computed.
            Cancelled: `should_stop` said so before some batch.
            EngineClosed: the engine was closed before all batches were done.
        """
        found: dict[int, Tensor] = {}
        for batch in compressor.plan(texts):
            if should_stop is not None and should_stop():
                raise Cancelled("the compression was cancelled")
            found.update(zip(batch.positions, self._run(compressor, batch), strict=True))
        return [found[position] for position in range(len(texts))]

    def close(self, *, drain: bool = True) -> None:
        """Take no more work and end the thread; safe to call twice.

        Args:
            drain: finish what is queued; otherwise only what is running, and cancel the rest.
        """
        with self._change:
            self._closed = True
            waiting = [] if drain else list(self._pending)
            self._change.notify()
        for future in waiting:
            future.cancel()
        if current_thread() is not self._thread:
            self._thread.join()

    def _run(self, compressor: Compressor, batch: Batch) -> list[Tensor]:
        try:
            return self.submit(lambda: compressor.run(batch), urgent=False).result()
        except CancelledError as error:
            raise EngineClosed("the engine was closed", remedy="Start another one") from error

    def _forget(self, future: Future[Any]) -> None:
        with self._change:
            self._pending.discard(future)

    def busy_s(self) -> float:
        """Seconds that the task in hand has taken so far; 0 where there is none."""
        began = self._began
        return 0.0 if began is None else monotonic() - began

    def _work(self) -> None:
        while (task := self._next()) is not None:
            self._began = monotonic()
            task()
            self._began = None
            del task  # one that is kept while it waits keeps a model from being dropped

    def _next(self) -> Callable[[], None] | None:
        """The next task; None once the engine is closed and empty."""
        with self._change:
            self._change.wait_for(lambda: self._urgent or self._bulk or self._closed)
            for queue in (self._urgent, self._bulk):
                if queue:
                    return queue.popleft()
            return None


def _settle(future: Future[T], task: Callable[[], T]) -> None:
    """Run `task` into `future`. Whatever it raises goes to whoever waits, never to the thread."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = task()
    except BaseException as error:  # also SystemExit: it would end the engine for everyone
        future.set_exception(error)
    else:
        future.set_result(result)
