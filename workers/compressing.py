"""The compress queue: one active run per collection, which goes on until no latent is lacking.

Where the model computes on the processor, compression gives way to indexing: both are bound by the
same cores, and a document that can be asked about is worth more than one with latents.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import exists, select

from clara.db.tables import ACTIVE, Run, RunKind
from clara.pipeline.compress import Compressing, Progress, compress_collection, lacking
from workers import runs
from workers.runs import Held
from workers.stopping import stopping

BUDGET_S = 30.0
"""Seconds of work per message: questions and other collections get their turn in between, and a
task stays far below the broker's visibility timeout."""


WAIT_S = 15.0
"""Seconds between two looks at the ingest queue; its last run sends the message itself."""

PATIENCE_S = 1800.0
"""Seconds after which compression gives way no more: indexing may never pause."""


def compress(held: Held, compressing: Compressing) -> bool:
    """Work for BUDGET_S. Returns whether the run should be sent again to go on at once."""
    collection = held.run.collection_id
    if collection is None:  # deleted meanwhile
        with compressing.open_db.begin() as db:
            runs.succeed(db, held, {"latents": 0}, runs.timings(held.run))
        return False
    if compressing.on_processor and _gives_way(held, compressing):
        runs.pause(compressing.open_db, held, held.run.done, held.run.total, wait_s=WAIT_S)
        return False

    def on_batch(progress: Progress) -> None:
        runs.progress(compressing.open_db, held, progress.done, progress.total)
        if stopping():
            raise _Stopping(progress)

    try:
        progress = compress_collection(
            collection, compressing, budget_s=BUDGET_S, on_batch=on_batch, stopped=held.stopped
        )
    except _Stopping as early:
        progress = early.progress
    if _finished(held, collection, compressing, progress):
        return False
    runs.pause(compressing.open_db, held, progress.done, progress.total)
    return True


class _Stopping(Exception):
    """This worker is about to end: the run goes on in another."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress


def _gives_way(held: Held, compressing: Compressing) -> bool:
    waited = datetime.now(UTC) - held.run.created_at
    if waited.total_seconds() > PATIENCE_S:
        return False
    with compressing.open_db() as db:
        indexing = exists().where(Run.kind == RunKind.INGEST, Run.status.in_(ACTIVE))
        return bool(db.scalar(select(indexing)))


def _finished(held: Held, collection: UUID, compressing: Compressing, progress: Progress) -> bool:
    left = lacking(collection, compressing.fingerprint, progress.skipped)
    result = {"latents": progress.done, "skipped": len(progress.skipped)}
    with compressing.open_db.begin() as db:
        return runs.finish_unless(db, held, left, result)
