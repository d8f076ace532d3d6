"""The first step of a recompression: compare, remove what is damaged, decide how to go on."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from clara import generations, registry
from clara.db.tables import Checkpoint, Generation, GenerationStatus, Run, RunKind
from clara.generations import Known
from clara.pipeline.recompress_check import Checked, check_blocks, remove_damaged
from clara.pipeline.recompress_plan import Plan, Stale, make_plan
from workers.recompression.queueing import NIGHT
from workers.recompression.visit import Next, Phase, Visit, Way

CHECK_S = 2.0
"""Seconds of comparing checksums at each planning."""


def plan(visit: Visit) -> Next:
    """Compare, remove what is damaged, and decide how to go on."""
    with visit.open_db() as db:
        target = _target(db, visit)
        after = _checked_to(db, visit, target.fingerprint)
    checked = check_blocks(
        visit.open_db,
        visit.collection,
        target.fingerprint,
        after=after,
        budget_s=CHECK_S,
        stopped=visit.stopped,
    )
    _remove_damaged(visit, target.fingerprint, checked)
    damaged = [UUID(passage) for passage in visit.state["damaged"]]
    with visit.open_db.begin() as db:
        target = db.get_one(Checkpoint, target.id)
        form = visit.config.latent_form
        found = make_plan(db, visit.collection, target, form=form, damaged=damaged)
        before = generations.ensure(db, visit.collection, target)
        way = way_to(found, before, target)
        visit.state.update(
            plan=found.as_dict(),
            checked=checked.as_dict() | {"fingerprint": target.fingerprint},
            checkpoint_id=str(target.id),
            way=way.value,
            before=before.number,
            wave=visit.state.get("wave", 0) + 1,
            rounds=0,
            skipped=[],
        )
        for of_an_earlier_plan in ("damaged", "asked", "gate", "generation", "number"):
            visit.state.pop(of_an_earlier_plan, None)
        if way is Way.SWITCHED:
            made = generations.build(db, visit.collection, target, visit.held.run.id)
            visit.state.update(generation=str(made.id), number=made.number)
        phase = Phase.COMPRESSING if way in (Way.REPAIRED, Way.SWITCHED) else Phase.SWITCHING
        visit.keep(db, phase, done=0, total=found.to_make)
    return phase


def _remove_damaged(visit: Visit, fingerprint: str, checked: Checked) -> None:
    """Delete them, and remember which they were: a plan made after a kill says so too.

    A transaction of its own: one that deletes latents must not wait for the collection's lock.
    """
    known = set(visit.state.get("damaged", []))
    with visit.open_db.begin() as db:
        gone = remove_damaged(db, visit.collection, fingerprint, checked.damaged)
        visit.state["damaged"] = sorted(known | set(map(str, gone)))
        if gone:
            visit.keep(db, Phase.PLANNING)


def _target(db: Session, visit: Visit) -> Checkpoint:
    """The checkpoint asked for; at night not one the gate refused: what answers is kept whole."""
    wanted = registry.find(db, visit.held.run.inputs["checkpoint_id"])
    if visit.reason == NIGHT and _refused(db, visit.collection, wanted):
        active = generations.active(db, visit.collection)
        return db.get_one(Checkpoint, active.checkpoint_id) if active else wanted
    return wanted


def _refused(db: Session, collection: UUID, checkpoint: Checkpoint) -> bool:
    """Whether the last generation of a checkpoint here was refused, and nothing changed since."""
    last = db.scalar(
        select(Generation)
        .where(
            Generation.collection_id == collection,
            Generation.checkpoint_id == checkpoint.id,
            Generation.fingerprint == checkpoint.fingerprint,
        )
        .order_by(Generation.number.desc())
        .limit(1)
    )
    return (
        last is not None
        and last.status is GenerationStatus.DROPPED
        and not (last.gate or {"passed": True}).get("passed", True)
    )


def _checked_to(db: Session, visit: Visit, fingerprint: str) -> UUID | None:
    """Where the planning before ended comparing checksums."""
    details = db.scalar(
        select(Run.details)
        .where(
            Run.collection_id == visit.collection,
            Run.kind == RunKind.RECOMPRESS,
            Run.details["checked"]["fingerprint"].as_string() == fingerprint,
        )
        .order_by(Run.created_at.desc())
        .limit(1)
    )
    to = (details or {}).get("checked", {}).get("to")
    return UUID(to) if to else None


def way_to(plan: Plan, before: Known | None, target: Checkpoint) -> Way:
    """How a collection comes to a checkpoint's latents; None answers from no generation yet."""
    if before is None:
        return Way.REPAIRED if plan.to_make else Way.NOTHING
    if before.fingerprint != target.fingerprint:
        return Way.SWITCHED
    if plan.to_make or plan.stale[Stale.DAMAGED]:
        return Way.REPAIRED
    return Way.NOTHING if before.checkpoint_id == target.id else Way.FOLLOWED
