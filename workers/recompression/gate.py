"""The recall gate of a recompression, in visits: what was asked already is kept with the run."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import Any
from uuid import UUID

from clara import generations
from clara.db.tables import Generation, GenerationStatus
from clara.errors import Cancelled
from clara.pipeline.asking import Answering
from clara.pipeline.gate_questions import Case, draw
from clara.pipeline.recall_gate import Told, Verdict, ask, judge
from clara.serving.patient import patient
from workers import runs
from workers.recompression.visit import Next, Phase, Visit

VISIT_S = 240.0
"""Seconds of asking in one visit."""

SAVE_S = 10.0
"""Seconds of asking that a kill can lose."""

SIDES = ("active", "new")


def judge_generation(visit: Visit) -> Next:
    """Ask until all is asked or the visit is over; then let the new generation through, or not."""
    _draw(visit)
    if not _asked(visit, monotonic() + VISIT_S):
        runs.pause(visit.open_db, visit.held)
        return True
    verdict = _verdict(visit)
    del visit.state["asked"]
    visit.state["gate"] = verdict.as_dict()
    if not verdict.passed:
        return _refuse(visit, verdict)
    with visit.open_db.begin() as db:
        visit.keep(db, Phase.SWITCHING)
    return Phase.SWITCHING


def _draw(visit: Visit) -> None:
    if "asked" in visit.state:
        return
    with visit.open_db() as db:
        cases = draw(
            db,
            visit.collection,
            visit.fingerprint,
            passages=visit.config.gate_passages,
            answers=visit.config.gate_answers,
        )
    kept = [[str(c.passage) if c.passage else None, c.question, c.answered] for c in cases]
    visit.state["asked"] = {"cases": kept, "active": [], "new": []}


def _asked(visit: Visit, ends: float) -> bool:
    """Ask one side, then the other, so that each checkpoint is loaded once. Returns whether all is
    asked."""
    state: dict[str, Any] = visit.state["asked"]
    cases = [_case(kept) for kept in state["cases"]]
    for side in SIDES:
        told = state[side]
        if len(told) == len(cases):
            continue
        answering = _answering(visit, side)
        saved = monotonic()
        for case in cases[len(told) :]:
            if visit.stopped():
                raise Cancelled("the recall gate was stopped")
            if monotonic() > ends:
                _save(visit)
                return False
            answer = ask(
                case,
                visit.collection,
                answering,
                from_text=side == "active",
                stopped=visit.stopped,
            )
            told.append(answer.as_list())
            if monotonic() - saved > SAVE_S:
                _save(visit)
                saved = monotonic()
        _save(visit)
    return True


def _answering(visit: Visit, side: str) -> Answering:
    """One side's checkpoint over the latents of its generation; users' questions go first."""
    with visit.open_db() as db:
        if side == "new":
            found = generations.known(db.get_one(Generation, UUID(visit.state["generation"])))
        else:
            active = generations.active(db, visit.collection)
            assert active is not None  # noqa: S101 - planning made one where there was none
            found = active
    if found.status is GenerationStatus.DROPPED:
        raise Cancelled(f"generation {found.number} was given up while it was judged")
    ready = visit.loaded.get(found.checkpoint_id)
    return patient(replace(ready, latents_of=found.fingerprint))


def _save(visit: Visit) -> None:
    with visit.open_db.begin() as db:
        visit.keep(db, Phase.GATE)


def _verdict(visit: Visit) -> Verdict:
    state = visit.state["asked"]
    active, new = ([Told(*told) for told in state[side]] for side in SIDES)
    return judge(
        active,
        new,
        recall_margin=visit.config.recall_margin,
        agreement_margin=visit.config.agreement_margin,
    )


def _refuse(visit: Visit, verdict: Verdict) -> bool:
    """Give the generation up, and fail the run with the numbers, in one transaction."""
    error = verdict.refusal(visit.state["number"])
    with visit.open_db.begin() as db:
        generations.drop(db, UUID(visit.state["generation"]), gate=verdict.as_dict())
        visit.keep(db, Phase.GATE)
        runs.give_up(db, visit.held, error.as_dict())
    return False


def _case(kept: list[Any]) -> Case:
    passage, question, answered = kept
    return Case(UUID(passage) if passage else None, question, answered)
