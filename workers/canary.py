"""Whether this worker still takes messages: a small one to itself, where no other comes.

A worker can stop consuming while its process lives, its connections stand and pings are answered
(celery issues 8030, 8091, 9054, 10205). So life is that a task began: any task, or else a canary,
which travels through the broker on a queue of this worker's own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from celery.signals import celeryd_after_setup, task_prerun
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError

from workers.app import app
from workers.enqueue import producer

log = logging.getLogger(__name__)

QUIET_S = 20.0
"""Seconds without a task after which a canary is sent, and again after the next as many."""

ALIVE_S = 60.0
"""Seconds without a task after which a worker does not count as alive."""

LOST_S = 120.0
"""Seconds without a task, though the broker takes canaries, after which it consumes no more."""

LOST = 4
"""Canaries that must have gone astray by then: a broker that was emptied loses one."""


@dataclass
class Canary:
    """What one worker knows of its own life."""

    name: str
    """Of the worker, `model@host`."""
    seen: float = field(default_factory=monotonic)
    """When a task began last, or none could for want of a thread."""
    sent: float = field(default_factory=monotonic)
    astray: int = 0
    """Canaries that the broker took since."""

    @property
    def queue(self) -> str:
        """The worker's own queue."""
        return f"canary.{self.name}"

    def sing(self) -> None:
        """A task began."""
        self.seen, self.astray = monotonic(), 0

    def look(self, *, busy: bool) -> None:
        """Send a canary where it is quiet; where all threads are taken, none can begin.

        A broker that does not take it is no fault of this worker.
        """
        now = monotonic()
        if busy:
            self.sing()
        elif now - max(self.seen, self.sent) > QUIET_S:
            self.sent = now
            self.astray += self._send()

    def alive(self) -> bool:
        """Whether a task began not long ago."""
        return monotonic() - self.seen < ALIVE_S

    def lost(self) -> bool:
        """Whether this worker takes no messages any more, though the broker does."""
        return self.astray >= LOST and monotonic() - self.seen > LOST_S

    def _send(self) -> bool:
        try:
            with producer() as sender:
                app.send_task(
                    "canary",
                    queue=_queue(self.queue),
                    producer=sender,
                    retry=False,
                    expires=LOST_S,
                )
        except (OperationalError, OSError) as error:
            log.warning("the broker did not take a canary: %s", error)
            return False
        return True


_HERE: list[Canary] = []


def here() -> Canary | None:
    """That of this process; None where it is no worker."""
    return _HERE[0] if _HERE else None


@app.task(name="canary", send_events=False)
def canary() -> None:
    """Nothing: that it began is all."""


def _queue(name: str) -> Queue:
    return Queue(name, Exchange("canary", type="direct"), routing_key=name)


@celeryd_after_setup.connect
def _listen(sender: str, instance: Any, **_: Any) -> None:
    found = Canary(sender)
    _HERE[:] = [found]
    instance.app.amqp.queues.select_add(_queue(found.queue))


@task_prerun.connect
def _began(**_: Any) -> None:
    for one in _HERE:
        one.sing()
