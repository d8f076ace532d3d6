"""The tasks: unpack an id, call one function, be safe to run twice. Imports no model code."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from clara.db.tables import RunKind
from clara.errors import Cancelled, IndexUnavailable
from clara.settings import settings
from workers import bootstrap, reconcile, runs
from workers.answering import answer
from workers.app import app
from workers.compressing import compress
from workers.enqueue import send
from workers.ingesting import ingest, purge
from workers.registering import register
from workers.runs import Held
from workers.training import train

log = logging.getLogger(__name__)


@app.task(name="ingest_documents")
def ingest_documents(run_id: str) -> None:
    """Make the documents of a run searchable, then ask for their latents."""
    with _held(run_id) as held:
        if held:
            ingest(held, bootstrap.indexing())


@app.task(name="purge_passages")
def purge_passages(run_id: str) -> None:
    """Take passages whose rows are gone out of the indexes."""
    with _held(run_id) as held:
        if held:
            purge(held, bootstrap.indexing())


@app.task(name="compress_collection")
def compress_collection(run_id: str) -> None:
    """Make a part of the latents a collection lacks; sends itself again until none is lacking."""
    with _held(run_id) as held:
        if held and compress(held, bootstrap.compressing()):
            send(RunKind.COMPRESS, held.run.id)


@app.task(name="answer_question")
def answer_question(run_id: str) -> None:
    """Answer the question of a run."""
    with _held(run_id) as held:
        if held:
            answer(held, bootstrap.answering())


@app.task(name="train")
def train_stage(run_id: str) -> None:
    """Train one stage and register what comes out; goes on where an earlier worker was lost."""
    with _held(run_id) as held:
        if held and train(held, bootstrap.database(), settings()):
            send(RunKind.TRAIN, held.run.id)


@app.task(name="register_checkpoint")
def register_checkpoint(run_id: str) -> None:
    """Look through a checkpoint's folder and write its row."""
    with _held(run_id) as held:
        if held:
            register(held, bootstrap.database(), bootstrap.engine(), settings())


@app.task(name="reconcile")
def reconcile_runs() -> dict[str, int]:
    """Bring messages and leases back in line with the runs table."""
    return reconcile.reconcile(bootstrap.database(), settings())


@contextmanager
def _held(run_id: str) -> Iterator[Held | None]:
    """The lease of a run for the length of the body, or None when there is nothing to do.

    An error of the body ends in the row: failed, or queued again where that may help.
    """
    config = settings()
    open_db = bootstrap.database()
    held = runs.take(open_db, UUID(run_id), lease_s=config.run_lease_s)
    if held is None:
        log.info("run %s is done, cancelled or held by another worker", run_id)
        yield None
        return
    log.info("run %s: %s, attempt %d", run_id, held.run.kind, held.run.attempts)
    try:
        with runs.holding(open_db, held, lease_s=config.run_lease_s):
            yield held
    except Cancelled as gone:
        log.info("run %s: %s", run_id, gone)
        runs.cancelled(open_db, held, gone)
    except Exception as error:
        log.exception("run %s: attempt %d failed", run_id, held.run.attempts)
        runs.fail(open_db, held, error, attempts=_attempts(held, error, config.run_attempts))


def _attempts(held: Held, error: Exception, allowed: int) -> int:
    """How often a run is tried. Who asks waits, and is told at once that no index answers."""
    told = held.run.kind is RunKind.QUERY and isinstance(error, IndexUnavailable)
    return 1 if told else allowed
