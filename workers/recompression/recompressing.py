"""A recompression, step by step: planned, made in parts, judged, switched to, and tidied up.

Each visit to the run goes on at the phase its row names, and every step ends in one transaction
that also writes the next phase. So a worker that is killed anywhere leaves a state from which the
next visit does the same step again, and no step done twice does harm.

    planning -> compressing <-> parts -> gate -> switching -> settling -> forgetting -> succeeded

Where the lexical index is made anew too, `rebuilding` comes before `switching`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.orm import Session

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Generation, GenerationStatus
from clara.errors import Cancelled, UnknownCollection
from clara.generations import Known
from clara.pipeline.compress import PAGE
from clara.pipeline.recompress import count_left
from clara.pipeline.settle import settle_documents
from clara.settings import Settings
from workers import runs
from workers.enqueue import queue_compress, transaction
from workers.recompression import rebuilding
from workers.recompression.making import compress
from workers.recompression.part import recompress_part
from workers.recompression.planning import plan
from workers.recompression.queueing import active_recompression, busy, queue_recompress
from workers.recompression.visit import WAIT_S, Next, Phase, Visit, Way, skipped_in, succeed
from workers.runs import Held
from workers.turns import turn

if TYPE_CHECKING:
    from workers.loaded import Loaded

__all__ = [
    "active_recompression",
    "busy",
    "queue_recompress",
    "recompress",
    "recompress_part",
]

ROUNDS = 3
"""Times a switch waits for passages that were written meanwhile; after that, a page of them is left
to the compress queue, or a collection that is always written to would never switch."""


def recompress(held: Held, loaded: Loaded, open_db: OpenDb, config: Settings) -> bool:
    """One visit. Returns whether the run should be sent again to go on at once."""
    collection = held.run.collection_id
    if collection is None:
        raise Cancelled("the collection was deleted before it was recompressed")
    visit = Visit(held, loaded, open_db, config, collection, dict(held.run.details or {}))
    step: Next = _first(visit)
    try:
        while isinstance(step, Phase):
            if visit.stopped():
                raise Cancelled("the recompression was stopped between two steps")
            step = STEPS[step](visit)
    except UnknownCollection as gone:
        raise Cancelled("the collection was deleted while it was recompressed") from gone
    return step


def _first(visit: Visit) -> Phase:
    """Where it stands; from the beginning where what it built was given up, as by the gate."""
    built = visit.state.get("generation")
    if built:
        with visit.open_db() as db:
            row = db.get(Generation, UUID(built))
        if row is None or row.status is GenerationStatus.DROPPED:
            return Phase.PLANNING
    return Phase(visit.held.run.phase or Phase.PLANNING)


def _judge(visit: Visit) -> Next:
    """Ask both generations the same questions; refuse a new one that does worse."""
    from workers.recompression.gate import judge_generation

    if not visit.held.run.inputs.get("gate", True) or not visit.config.gate_passages:
        return visit.go_on(Phase.SWITCHING)
    with turn() as ours:
        if not ours:
            runs.pause(visit.open_db, visit.held, wait_s=WAIT_S)
            return False
        return judge_generation(visit)


def _switch(visit: Visit) -> Next:
    """Let the new generation answer: a few rows in one transaction, however many passages it has.

    They are counted before it, or whoever asks or writes would wait for that. What is written in
    between is read as text until the compress run that is asked for here has made its latents. A
    lexical index that was made anew takes over at the same moment.
    """
    if rebuilding.is_due(visit):
        return Phase.REBUILDING
    lexical = rebuilding.where(visit)
    lacking = _lacking(visit)
    with transaction(visit.open_db) as (db, send):
        generations.lock(db, visit.collection)
        changed = visit.way is not Way.SWITCHED and not _is_active(db, visit)
        if changed or lacking > _tolerated(visit):
            visit.state["rounds"] += 1
            back = Phase.PLANNING if changed else Phase.COMPRESSING
            visit.keep(db, back)
            return back
        if lexical and not rebuilding.is_built(db, visit):
            del visit.state["rebuild"]
            visit.keep(db, Phase.REBUILDING)
            return Phase.REBUILDING
        now = _take_over(db, visit)
        visit.state["number"] = now.number
        if visit.way is Way.SWITCHED or lacking > _unreadable(visit):
            queue_compress(db, send, visit.collection)
        visit.keep(db, Phase.SETTLING)
        if lexical:
            rebuilding.take_over(db, visit, lexical)
    return Phase.SETTLING


def _lacking(visit: Visit) -> int:
    """Passages without a latent that are not known to be unreadable."""
    skipped = skipped_in(visit)
    with visit.open_db() as db:
        return count_left(db, visit.collection, visit.fingerprint, skipped)


def _settle(visit: Visit) -> Next:
    """The documents' status follows, a batch at a time."""
    settle_documents(visit.open_db, visit.collection, stopped=visit.stopped)
    return visit.go_on(Phase.FORGETTING)


def _tolerated(visit: Visit) -> float:
    """Passages that may be without a latent at a switch: none, at first.

    Where the latents stay the active ones, new documents wait for theirs whatever happens here.
    """
    if visit.way in (Way.NOTHING, Way.FOLLOWED):
        return inf
    return PAGE if visit.state["rounds"] >= ROUNDS else 0


def _unreadable(visit: Visit) -> int:
    """Passages without a latent that nobody needs to try: they are too long."""
    tried = visit.way in (Way.REPAIRED, Way.SWITCHED)
    return 0 if tried else int(visit.state["plan"]["too_long"])


def _is_active(db: Session, visit: Visit) -> bool:
    """Whether what is repaired or followed still answers: somebody may have gone back."""
    active = generations.active(db, visit.collection)
    return active is not None and active.fingerprint == visit.fingerprint


def _take_over(db: Session, visit: Visit) -> Known:
    kept = visit.config.generations_kept
    if visit.way is Way.SWITCHED:
        gate = visit.state.get("gate")
        return generations.switch(db, UUID(visit.state["generation"]), keep=kept, gate=gate)
    checkpoint = db.get_one(Checkpoint, visit.checkpoint_id)
    run = visit.held.run.id
    now = generations.follow(db, visit.collection, checkpoint, keep=kept, run=run)
    assert now is not None  # noqa: S101 - its fingerprint is the active one, under the lock
    return now


def _forget(visit: Visit) -> Next:
    """Delete latents that no generation needs, some at a time; then the run has succeeded."""
    while True:
        if visit.stopped():
            raise Cancelled("the recompression was stopped while it tidied up")
        with visit.open_db.begin() as db:
            gone = sum(
                generations.forget(db, visit.collection, fingerprint)
                for fingerprint in generations.unneeded(db, visit.collection)
            )
            visit.state["forgotten"] = visit.state.get("forgotten", 0) + gone
            if not gone:
                succeed(db, visit, remains=0)
                return False
            visit.keep(db, Phase.FORGETTING)


STEPS: dict[Phase, Callable[[Visit], Next]] = {
    Phase.PLANNING: plan,
    Phase.COMPRESSING: compress,
    Phase.GATE: _judge,
    Phase.REBUILDING: rebuilding.rebuild,
    Phase.SWITCHING: _switch,
    Phase.SETTLING: _settle,
    Phase.FORGETTING: _forget,
}
