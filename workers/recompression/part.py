"""A part of a recompression: the latents of a range of passages, a few minutes of work."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from clara.db.connect import OpenDb
from clara.errors import Cancelled, CheckpointMismatch
from clara.pipeline.compress import Compressing
from clara.pipeline.recompress import Made, Range, compress_range
from workers import runs
from workers.compressing import WAIT_S, gives_way
from workers.recompression.queueing import count_on_parent, wake_a_part
from workers.runs import Held
from workers.stopping import stopping
from workers.turns import turn

if TYPE_CHECKING:
    from workers.loaded import Loaded

BUDGET_S = 240.0
"""Seconds after which a part ends; what it did not get to is cut anew."""

TURN_S = 10.0
"""Seconds until a part looks again whether it is its turn; a part that ends wakes it sooner."""


def recompress_part(held: Held, loaded: Loaded, open_db: OpenDb) -> bool:
    """Work for BUDGET_S at most. Returns whether the run should be sent again to go on at once."""
    collection = held.run.collection_id
    if collection is None:
        raise Cancelled("the collection was deleted while it was recompressed")
    if is_over(held):
        return _end(held, open_db, Made())
    compressing = loaded.compressing(UUID(held.run.inputs["checkpoint_id"]))
    check_fingerprint(compressing, held.run.inputs["fingerprint"])
    if compressing.on_processor and gives_way(held, compressing):
        runs.pause(open_db, held, wait_s=WAIT_S)
        return False
    with turn() as ours:
        if not ours:
            runs.pause(open_db, held, wait_s=TURN_S)
            return False
        made = _compress(held, collection, compressing)
    _end(held, open_db, made)
    wake_a_part(open_db)
    return False


def check_fingerprint(compressing: Compressing, wanted: str) -> None:
    """Refuse to make latents of another fingerprint than the plan is about.

    Raises:
        CheckpointMismatch: this worker computes in another precision than the one that planned.
    """
    if compressing.fingerprint != wanted:
        raise CheckpointMismatch(
            f"this worker makes latents of fingerprint {compressing.fingerprint}, the "
            f"recompression is about {wanted}",
            field="fingerprint",
            remedy="Let all model workers compute on the same kind of device (CLARA_DEVICE), and "
            "ask for the recompression again.",
        )


def is_over(held: Held) -> bool:
    """Whether the time a recompression was given is used up."""
    deadline = held.run.inputs.get("deadline")
    return deadline is not None and datetime.now(UTC) >= datetime.fromisoformat(deadline)


def _compress(held: Held, collection: UUID, compressing: Compressing) -> Made:
    open_db, inputs = compressing.open_db, held.run.inputs
    first, before = (UUID(inputs[name]) if inputs[name] else None for name in ("first", "before"))
    seen = 0

    def on_page(made: Made) -> None:
        nonlocal seen
        done = made.latents + len(made.skipped)
        runs.progress(open_db, held, done, max(done, held.run.total))
        with open_db.begin() as db:
            count_on_parent(db, held, done - seen)
        seen = done

    def stopped() -> bool:
        return held.stopped() or stopping()

    def enough() -> bool:
        return is_over(held)

    return compress_range(
        Range(collection, first, before),
        compressing,
        budget_s=BUDGET_S,
        on_page=on_page,
        stopped=stopped,
        enough=enough,
    )


def _end(held: Held, open_db: OpenDb, made: Made) -> bool:
    result = {
        "latents": made.latents,
        "skipped": len(made.skipped),
        "tokens": made.tokens,
        "seconds": round(made.seconds, 3),
        "fingerprint": held.run.inputs["fingerprint"],
    }
    skipped = [str(passage) for passage in made.skipped]
    with open_db.begin() as db:
        runs.keep(db, held, details={"skipped": skipped})
        runs.succeed(db, held, result, runs.timings(held.run))
    return False
