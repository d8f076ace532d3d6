"""The compress queue: one active run per collection, which goes on until no latent is lacking."""

from __future__ import annotations

from uuid import UUID

from clara.pipeline.compress import Compressing, Progress, compress_collection, lacking
from workers import runs
from workers.runs import Held

BUDGET_S = 30.0
"""Seconds of work per message: questions and other collections get their turn in between, and a
task stays far below the broker's visibility timeout."""


def compress(held: Held, compressing: Compressing) -> bool:
    """Work for BUDGET_S. Returns whether the run has ended; if not, it was given back."""
    collection = held.run.collection_id
    if collection is None:  # deleted meanwhile
        with compressing.open_db.begin() as db:
            runs.succeed(db, held, {"latents": 0}, runs.timings(held.run))
        return True

    def on_batch(progress: Progress) -> None:
        runs.progress(compressing.open_db, held, progress.done, progress.total)

    progress = compress_collection(
        collection, compressing, budget_s=BUDGET_S, on_batch=on_batch, stopped=held.stopped
    )
    if _finished(held, collection, compressing, progress):
        return True
    runs.pause(compressing.open_db, held, progress.done, progress.total)
    return False


def _finished(held: Held, collection: UUID, compressing: Compressing, progress: Progress) -> bool:
    left = lacking(collection, compressing.fingerprint, progress.skipped)
    result = {"latents": progress.done, "skipped": len(progress.skipped)}
    with compressing.open_db.begin() as db:
        return runs.finish_unless(db, held, left, result)
