"""The compress queue: one active run per collection, which goes on until no latent is lacking.

Where the model computes on the processor, compression gives way to indexing: both are bound by the
same cores, and a document that can be asked about is worth more than one with latents.

Latents are made for the generation that answers. Where another one takes its place, the run goes on
for that one, and first says of every document whether its latents are there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import exists, select, union_all

from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Generation, GenerationStatus, Run, RunKind
from clara.errors import UnknownCollection
from clara.generations import Known
from clara.pipeline.compress import Compressing, Progress, compress_collection, lacking
from clara.pipeline.settle import settle_documents, unsettled
from workers import runs
from workers.enqueue import transaction
from workers.loaded import Loaded
from workers.recompression.queueing import queue_recompress
from workers.runs import Held
from workers.stopping import stopping

BUDGET_S = 30.0
"""Seconds of work per message: questions and other collections get their turn in between, and a
task stays far below the broker's visibility timeout."""


WAIT_S = 15.0
"""Seconds between two looks at the ingest queue; its last run sends the message itself."""

PATIENCE_S = 1800.0
"""Seconds after which compression gives way no more: indexing may never pause."""


def compress(held: Held, loaded: Loaded, open_db: OpenDb) -> bool:
    """Work for BUDGET_S. Returns whether the run should be sent again to go on at once."""
    generation = _generation(held.run.collection_id, loaded)
    if generation is None:
        with open_db.begin() as db:
            runs.succeed(db, held, {"latents": 0}, runs.timings(held.run))
        return False
    collection = generation.collection_id
    _settle(held, collection, open_db)
    compressing = loaded.compressing(generation.checkpoint_id)
    if compressing.fingerprint != generation.fingerprint:
        _make_anew(held, generation, open_db)
        return False
    if compressing.on_processor and gives_way(held, compressing):
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


def _generation(collection: UUID | None, loaded: Loaded) -> Known | None:
    """The one that answers; None where the collection was deleted meanwhile."""
    try:
        return loaded.generation(collection) if collection else None
    except UnknownCollection:
        return None


def _settle(held: Held, collection: UUID, open_db: OpenDb) -> None:
    """What a switch or a rollback left to be done. It needs no model, and comes before one.

    Raises:
        Cancelled: the run was, or this worker is about to end.
    """
    with open_db() as db:
        wanted = db.scalar(unsettled(collection))
    if wanted:
        settle_documents(open_db, collection, stopped=lambda: held.stopped() or stopping())


def _make_anew(held: Held, generation: Known, open_db: OpenDb) -> None:
    """Ask for a generation of the precision that this worker computes in.

    It cannot add to latents of another one, such as those of a device there was before.
    """
    with transaction(open_db) as (db, send):
        queue_recompress(
            db,
            send,
            generation.collection_id,
            checkpoint_id=generation.checkpoint_id,
            reason="precision",
            gate=False,
        )
        runs.succeed(db, held, {"latents": 0}, runs.timings(held.run))


class _Stopping(Exception):
    """This worker is about to end: the run goes on in another."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress


def gives_way(held: Held, compressing: Compressing) -> bool:
    """Whether documents are being indexed, which needs the same cores."""
    waited = datetime.now(UTC) - held.run.created_at
    if waited.total_seconds() > PATIENCE_S:
        return False
    with compressing.open_db() as db:
        indexing = exists().where(Run.kind == RunKind.INGEST, Run.status.in_(ACTIVE))
        return bool(db.scalar(select(indexing)))


def _finished(held: Held, collection: UUID, compressing: Compressing, progress: Progress) -> bool:
    """Whether nothing is left to do, of the generation that answers at this moment."""
    fingerprint = compressing.fingerprint
    other = select(Generation.id).where(
        Generation.collection_id == collection,
        Generation.status == GenerationStatus.ACTIVE,
        Generation.fingerprint != fingerprint,
    )
    left = union_all(
        lacking(collection, fingerprint, progress.skipped), other, unsettled(collection)
    )
    result = {"latents": progress.done, "skipped": len(progress.skipped)}
    with compressing.open_db.begin() as db:
        return runs.finish_unless(db, held, left, result)
