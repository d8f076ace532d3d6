"""One visit to a recompression: where it stands, and what earlier visits found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Run, RunKind
from clara.settings import Settings
from workers import runs
from workers.recompression.queueing import parts
from workers.runs import Held
from workers.stopping import stopping

if TYPE_CHECKING:
    from workers.loaded import Loaded

WAIT_S = 10.0
"""Seconds until a recompression looks again whether it is its turn."""


class Phase(StrEnum):
    """Where a recompression stands."""

    PLANNING = "planning"
    COMPRESSING = "compressing"
    GATE = "gate"
    REBUILDING = "rebuilding"
    SWITCHING = "switching"
    SETTLING = "settling"
    FORGETTING = "forgetting"


class Way(StrEnum):
    """How a collection comes to the latents of a checkpoint."""

    NOTHING = "nothing"
    """It has them, and answers with that checkpoint."""
    FOLLOWED = "followed"
    """It has them: the checkpoint takes over at once."""
    REPAIRED = "repaired"
    """Some are lacking; they are made in place, while it answers."""
    SWITCHED = "switched"
    """They are made beside the active ones, which then give way."""


Next = Phase | bool
"""The phase to go on with, or the end of a visit: whether to send the run again at once."""


@dataclass(frozen=True)
class Visit:
    """What a visit to a recompression has at hand."""

    held: Held
    loaded: Loaded
    open_db: OpenDb
    config: Settings
    collection: UUID
    state: dict[str, Any]
    """The run's details: what earlier steps found. Written with each step."""

    @property
    def reason(self) -> str:
        """Why the collection is recompressed."""
        return str(self.held.run.inputs.get("reason", ""))

    @property
    def checkpoint_id(self) -> UUID:
        """The checkpoint that was planned with."""
        return UUID(self.state["checkpoint_id"])

    @property
    def fingerprint(self) -> str:
        """Of the latents that are made."""
        return str(self.state["plan"]["fingerprint"])

    @property
    def way(self) -> Way:
        """As planned."""
        return Way(self.state["way"])

    @property
    def rebuilds(self) -> bool:
        """Whether the lexical index is made anew, too."""
        return bool(self.held.run.inputs.get("rebuild_indexes"))

    def stopped(self) -> bool:
        """Whether to break off: cancelled, taken over, or this process ends."""
        return self.held.stopped() or stopping()

    def keep(self, db: Session, phase: Phase, **columns: Any) -> None:
        """Write the next phase and what was found, in the transaction of a step's effects."""
        runs.keep(db, self.held, phase=phase.value, details=dict(self.state), **columns)

    def go_on(self, phase: Phase) -> Phase:
        """Write the next phase, where the step before changed nothing else."""
        with self.open_db.begin() as db:
            self.keep(db, phase)
        return phase


def skipped_in(visit: Visit) -> list[UUID]:
    """Passages that this checkpoint could not read, as all parts so far found."""
    with visit.open_db() as db:
        return all_skipped(db, visit)


def all_skipped(db: Session, visit: Visit) -> list[UUID]:
    """The same, in a transaction."""
    told = db.scalars(
        select(Run.details).where(
            Run.parent_id == visit.held.run.id,
            Run.kind == RunKind.RECOMPRESS_PART,
            Run.inputs["fingerprint"].as_string() == visit.fingerprint,
            Run.result["skipped"].as_integer() > 0,
        )
    ).all()
    found = {passage for details in told for passage in details.get("skipped", [])}
    return [UUID(passage) for passage in sorted(found | set(visit.state["skipped"]))]


def succeed(db: Session, visit: Visit, *, remains: int) -> None:
    """End the run well, in the transaction of its last effects, and say what it came to."""
    state, plan = visit.state, visit.state["plan"]
    made = sum(
        (part.result or {}).get("latents", 0) for part in parts(db, visit.held.run.id)
    ) + state.get("made_here", 0)
    result = {
        "outcome": "paused" if remains else state["way"],
        "generation": state.get("number"),
        "before": state["before"],
        "stale": plan["stale"],
        "done": made,
        "remains": remains,
        "skipped": len(all_skipped(db, visit)),
        "forgotten": state.get("forgotten", 0),
        "gate": state.get("gate"),
    }
    if rebuilt := state.get("rebuild"):
        result |= {"indexed": rebuilt["passages"], "index_seconds": round(rebuilt["seconds"], 3)}
    runs.succeed(db, visit.held, result, runs.timings(visit.held.run))
