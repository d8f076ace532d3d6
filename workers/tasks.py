"""The tasks: unpack an id, call one function, be safe to run twice. Imports no model code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

from clara.db.connect import OpenDb
from clara.db.tables import RunKind
from clara.errors import Cancelled, IndexUnavailable
from clara.settings import settings
from workers import bootstrap, children, reconcile, runs
from workers.answering import answer
from workers.app import app
from workers.compressing import compress
from workers.enqueue import send
from workers.ingesting import ingest, purge
from workers.nights import nights
from workers.recompression.recompressing import recompress, recompress_part
from workers.registering import register
from workers.runs import Held
from workers.stopping import stopping
from workers.training import train

log = logging.getLogger(__name__)

T = TypeVar("T")


@app.task(name="ingest_documents")
def ingest_documents(run_id: str) -> None:
    """Make the documents of a run searchable, then ask for their latents."""
    _work(
        run_id,
        bootstrap.indexings,
        lambda held, all_: ingest(held, all_.of(held.run.collection_id)),
    )


@app.task(name="purge_passages")
def purge_passages(run_id: str) -> None:
    """Take passages whose rows are gone out of the indexes."""
    _work(run_id, bootstrap.indexings, lambda held, all_: purge(held, all_.of(None)))


@app.task(name="compress_collection")
def compress_collection(run_id: str) -> None:
    """Make a part of the latents a collection lacks; sends itself again until none is lacking."""
    _work(run_id, bootstrap.loaded, lambda held, all_: compress(held, all_, bootstrap.database()))


@app.task(name="recompress_collection")
def recompress_collection(run_id: str) -> None:
    """Go on with a recompression: plan, parts, gate, switch, forgetting."""
    _work(
        run_id,
        bootstrap.loaded,
        lambda held, loaded: recompress(held, loaded, bootstrap.database(), settings()),
    )


@app.task(name="recompress_part")
def recompress_range(run_id: str) -> None:
    """Make the latents of a range of passages."""
    _work(
        run_id,
        bootstrap.loaded,
        lambda held, loaded: recompress_part(held, loaded, bootstrap.database()),
    )


@app.task(name="answer_question")
def answer_question(run_id: str) -> None:
    """Answer the question of a run."""
    _work(run_id, bootstrap.loaded, lambda held, all_: answer(held, all_, bootstrap.database()))


@app.task(name="train")
def train_stage(run_id: str) -> None:
    """Train one stage and register what comes out; goes on where an earlier worker was lost."""
    _work(run_id, bootstrap.database, lambda held, db: train(held, db, settings()))


@app.task(name="register_checkpoint")
def register_checkpoint(run_id: str) -> None:
    """Look through a checkpoint's folder and write its row."""
    _work(
        run_id,
        bootstrap.loader,
        lambda held, loader: register(held, bootstrap.database(), loader, settings()),
    )


@app.task(name="work_off_night")
def work_off_night(run_id: str) -> None:
    """Go on with a night: recompressions, audits, report."""
    _work(
        run_id,
        bootstrap.loaded,
        lambda held, loaded: nights.work_off(
            held,
            nights.Nightly(bootstrap.database(), loaded, bootstrap.default_checkpoint, settings()),
        ),
    )


@app.task(name="look_at_schedule")
def look_at_schedule() -> None:
    """Begin the night that is due, if one is."""
    if night := nights.look_at_schedule(bootstrap.database(), settings()):
        log.info("night %s begins", night)


@app.task(name="reconcile")
def reconcile_runs() -> dict[str, int]:
    """Bring messages and leases back in line with the runs table."""
    return reconcile.reconcile(bootstrap.database(), settings())


def _work(run_id: str, ready: Callable[[], T], work: Callable[[Held, T], bool | None]) -> None:
    """Take a run, get ready, work, and send it again where `work` says that it goes on at once."""
    with _held(run_id) as held:
        if held is None:
            return
        services = ready()
        runs.begin(bootstrap.database(), held)
        if work(held, services):
            send(held.run.kind, held.run.id)


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
        _stopped(open_db, held, gone)
    except Exception as error:
        log.exception("run %s: attempt %d failed", run_id, held.run.attempts)
        runs.fail(open_db, held, error, attempts=_attempts(held, error, config.run_attempts))
    if held.run.parent_id:
        children.wake(open_db, held.run.parent_id)


def _stopped(open_db: OpenDb, held: Held, why: Cancelled) -> None:
    """Work that broke off: given back where that is because this process ends."""
    if not stopping() or held.lost.is_set():
        runs.cancelled(open_db, held, why)
    elif runs.give_back(open_db, held):
        send(held.run.kind, held.run.id)


def _attempts(held: Held, error: Exception, allowed: int) -> int:
    """How often a run is tried. Who asks waits, and is told at once that no index answers."""
    told = held.run.kind is RunKind.QUERY and isinstance(error, IndexUnavailable)
    return 1 if told else allowed
