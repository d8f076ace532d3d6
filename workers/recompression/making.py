"""The latents of a recompression: in parts, which are its children, and the last page at once."""

from __future__ import annotations

import time
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clara import registry
from clara.db.tables import ACTIVE, Run, RunKind, RunStatus
from clara.errors import CheckpointMismatch, RecompressionFailed
from clara.pipeline.compress import PAGE
from clara.pipeline.recompress import Range, compress_range, count_left, ranges
from clara.pipeline.recompress_plan import speed
from clara.pipeline.settle import settle_documents
from workers import runs
from workers.enqueue import transaction
from workers.recompression.part import check_fingerprint, is_over
from workers.recompression.queueing import add_parts, parts
from workers.recompression.visit import WAIT_S, Next, Phase, Visit, Way, skipped_in, succeed
from workers.turns import turn

WAVE = 4
"""Parts on their way at a time: enough for as many model workers, and no flood of messages."""

PART_S = 120.0
"""Seconds a part should take."""

FIRST_PART = 4 * PAGE
"""Passages of a part while no speed is known."""


def compress(visit: Visit) -> Next:
    """Look what is still lacking; a page of it is made here, more of it in parts."""
    _raise_of_failed_parts(visit)
    skipped = skipped_in(visit)
    with visit.open_db() as db:
        lacking = count_left(db, visit.collection, visit.fingerprint, skipped)
    if not lacking:
        return visit.go_on(Phase.GATE if visit.way is Way.SWITCHED else Phase.SWITCHING)
    if is_over(visit.held):
        return _leave(visit, lacking)
    if visit.way is not Way.SWITCHED and _compress_run_works(visit):
        runs.pause(visit.open_db, visit.held, wait_s=WAIT_S)  # it makes the same ones
        return False
    if lacking <= PAGE:
        return _compress_here(visit)
    return _send_parts(visit, lacking, skipped)


def _raise_of_failed_parts(visit: Visit) -> None:
    """Fail by name where a part did; a retry then goes on with other parts.

    Raises:
        RecompressionFailed: a part of the last wave failed.
    """
    with visit.open_db() as db:
        ended = parts(db, visit.held.run.id, wave=visit.state["wave"])
    failed = [part for part in ended if part.status is RunStatus.FAILED]
    if not failed:
        return
    visit.state["wave"] += 1
    visit.go_on(Phase.COMPRESSING)
    error = failed[0].error or {}
    raise RecompressionFailed(
        f"{len(failed)} of {len(ended)} parts failed; run {failed[0].id}, "
        f"{failed[0].done:,} of {failed[0].total:,} passages: {error.get('message', 'no reason')}",
        field="run",
        remedy=error.get("remedy") or "Look at that run; a retry of this one goes on from here.",
    )


def _compress_run_works(visit: Visit) -> bool:
    working = select(Run.id).where(
        Run.collection_id == visit.collection,
        Run.kind == RunKind.COMPRESS,
        Run.status.in_(ACTIVE),
    )
    with visit.open_db() as db:
        return db.scalar(working.limit(1)) is not None


def _compress_here(visit: Visit) -> Next:
    """The last page, or the only one: not worth a run of its own."""
    compressing = visit.loaded.compressing(visit.checkpoint_id)
    try:
        check_fingerprint(compressing, visit.fingerprint)
    except CheckpointMismatch:
        return _plan_again(visit)
    with turn() as ours:
        if not ours:
            runs.pause(visit.open_db, visit.held, wait_s=WAIT_S)
            return False
        everything = Range(visit.collection, None, None)
        made = compress_range(
            everything,
            compressing,
            budget_s=PART_S,
            on_page=lambda _: None,
            stopped=visit.stopped,
        )
    if not made.latents and not set(map(str, made.skipped)) - set(visit.state["skipped"]):
        runs.pause(visit.open_db, visit.held, wait_s=WAIT_S)  # they are being deleted
        return False
    visit.state["skipped"] = sorted({*visit.state["skipped"], *map(str, made.skipped)})
    visit.state["made_here"] = visit.state.get("made_here", 0) + made.latents
    done = func.least(Run.done + made.latents, Run.total)
    with visit.open_db.begin() as db:
        visit.keep(db, Phase.COMPRESSING, done=done)
    return Phase.COMPRESSING


def _plan_again(visit: Visit) -> Phase:
    """The checkpoint's fingerprint on record was that of another precision; loading put it right.

    Raises:
        CheckpointMismatch: it did not.
    """
    with visit.open_db() as db:
        row = registry.find(db, str(visit.checkpoint_id))
    if visit.state.get("planned_again") or row.fingerprint == visit.fingerprint:
        check_fingerprint(visit.loaded.compressing(visit.checkpoint_id), visit.fingerprint)
    visit.state["planned_again"] = True
    return visit.go_on(Phase.PLANNING)


def _send_parts(visit: Visit, lacking: int, skipped: list[UUID]) -> Next:
    """The next wave of parts. The last of them to end wakes this run."""
    compressing = visit.loaded.compressing(visit.checkpoint_id)
    if compressing.fingerprint != visit.fingerprint:
        return _plan_again(visit)
    plan = visit.state["plan"]
    done = max(plan["to_make"] - lacking, visit.held.run.done, 0)
    visit.state["wave"] += 1
    visit.state["since"] = {"done": done, "at": time.time()}
    with transaction(visit.open_db) as (db, send):
        cut = ranges(
            db,
            visit.collection,
            visit.fingerprint,
            size=_part_size(db, visit),
            most=WAVE,
            skipped=skipped,
        )
        if not cut:
            return Phase.COMPRESSING  # deleted since they were counted
        add_parts(
            db,
            send,
            visit.held,
            cut,
            wave=visit.state["wave"],
            checkpoint_id=str(visit.checkpoint_id),
            fingerprint=visit.fingerprint,
            deadline=visit.held.run.inputs.get("deadline"),
        )
        runs.await_children(
            db,
            visit.held,
            phase=Phase.COMPRESSING.value,
            details=dict(visit.state),
            done=done,
            total=max(done + lacking, visit.held.run.total),
        )
    return False


def _part_size(db: Session, visit: Visit) -> int:
    """Passages of about PART_S at the speed measured last."""
    plan = visit.state["plan"]
    mean = plan["tokens"] / plan["to_make"] if plan["to_make"] else 0.0
    measured = speed(db, visit.fingerprint, mean).value
    if not measured or not mean:
        return FIRST_PART
    return max(PAGE, int(measured * PART_S / mean))


def _leave(visit: Visit, lacking: int) -> bool:
    """The time is used up: what is made stays, and another run goes on with it."""
    if visit.way is not Way.SWITCHED:
        settle_documents(visit.open_db, visit.collection, stopped=visit.stopped)
    with visit.open_db.begin() as db:
        visit.keep(db, Phase.COMPRESSING)
        succeed(db, visit, remains=lacking)
    return False
