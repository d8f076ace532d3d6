"""Commit first, then send. The committed row is the record; the message only points at it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from uuid import UUID

from kombu.exceptions import OperationalError
from kombu.messaging import Producer
from kombu.pools import ProducerPool, producers
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Run, RunKind, RunStatus
from workers.app import app

log = logging.getLogger(__name__)

Send = Callable[[RunKind, UUID], None]
"""Asks for the message of a run; it leaves after the commit, or never."""

TASKS = {
    RunKind.INGEST: "ingest_documents",
    RunKind.COMPRESS: "compress_collection",
    RunKind.QUERY: "answer_question",
    RunKind.PURGE: "purge_passages",
    RunKind.TRAIN: "train",
    RunKind.REGISTER: "register_checkpoint",
    RunKind.RECOMPRESS: "recompress_collection",
    RunKind.RECOMPRESS_PART: "recompress_part",
    RunKind.NIGHT: "work_off_night",
}


SEND_S = 1.0
"""Seconds the broker may take to answer one try to send; there are two."""

BOUNDED = {
    "socket_timeout": SEND_S,
    "socket_connect_timeout": SEND_S,
    "max_retries": 1,
    "interval_start": 0,
}
"""For connections that wait for no message. Without these limits a refused one takes 6 seconds, and
a silent one has no end. A worker receives its messages through another connection, where a wait is
no fault."""


@contextmanager
def transaction(open_db: OpenDb) -> Iterator[tuple[Session, Send]]:
    """One commit. Runs sent inside leave after it; after a rollback nothing leaves."""
    outbox: list[tuple[RunKind, UUID]] = []
    with open_db.begin() as db:
        yield db, lambda kind, run_id: outbox.append((kind, run_id))
    for kind, run_id in outbox:
        if not send(kind, run_id):
            break  # nor would it take the others: the reconciler sends them


def send(kind: RunKind, run_id: UUID) -> bool:
    """Put the message of a committed run on its queue. Returns whether the broker took it.

    A broker that does not answer is no error for the caller: the reconciler sends every queued
    run again until it is taken.
    """
    try:
        with producer() as sender:
            app.send_task(TASKS[kind], args=[str(run_id)], producer=sender, retry=False)
    except (OperationalError, OSError) as error:
        log.warning("run %s stays queued, the broker did not take its message: %s", run_id, error)
        return False
    return True


@contextmanager
def producer() -> Iterator[Producer]:
    """What sends messages, out of a pool; a broker that is away holds nobody up."""
    with _pool(app.conf.broker_url).acquire(block=True) as sender:
        yield sender


@lru_cache(maxsize=1)
def _pool(_: str) -> ProducerPool:
    """The connections to the broker of an address; finding them takes a fifth of a send."""
    pool: ProducerPool = producers[app.connection_for_write(transport_options=BOUNDED)]
    return pool


def queue_run(
    db: Session,
    send: Send,
    kind: RunKind,
    *,
    collection_id: UUID | None,
    inputs: dict[str, Any],
    total: int = 0,
) -> Run:
    """Write a queued run and ask for its message."""
    run = Run(kind=kind, collection_id=collection_id, inputs=inputs, total=total)
    db.add(run)
    db.flush()
    send(kind, run.id)
    return run


def queue_compress(db: Session, send: Send, collection_id: UUID) -> UUID | None:
    """Make sure a compress run will see the passages written in this transaction.

    An active run is locked: it cannot finish before this transaction is visible to it, and then
    finds what it lacks (see `workers.runs.finish_unless`). One that waits is woken. Returns the id
    of a new run, if any.
    """
    active = select(Run.id, Run.status, Run.queued_at, Run.sent_at).where(
        Run.collection_id == collection_id,
        Run.kind == RunKind.COMPRESS,
        Run.status.in_(ACTIVE),
    )
    new = (
        insert(Run)
        .values(kind=RunKind.COMPRESS, status=RunStatus.QUEUED, collection_id=collection_id)
        .on_conflict_do_nothing()
        .returning(Run.id)
    )
    while True:  # ends: each round waits for another transaction that made or ended a run
        if run_id := db.scalar(new):
            send(RunKind.COMPRESS, run_id)
            return run_id
        if found := db.execute(active.with_for_update()).one_or_none():
            if found.status is RunStatus.QUEUED and found.queued_at > found.sent_at:
                _wake(db, send, found.id)
            return None


def _wake(db: Session, send: Send, run_id: UUID) -> None:
    now = func.clock_timestamp()
    db.execute(update(Run).where(Run.id == run_id).values(queued_at=now, sent_at=now))
    send(RunKind.COMPRESS, run_id)
