"""Checkpoints on record: registered, scored, promoted; at most one of them serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara.db.tables import Checkpoint
from clara.errors import PromotionRefused, UnknownCheckpoint
from clara.evaluation.gate import Scores, Verdict, judge

PROMOTION_LOCK = 0x70726F6D6F
"""Advisory lock: two promotions at once take turns."""


@dataclass(frozen=True)
class Inspected:
    """A checkpoint's folder, looked through."""

    name: str
    fingerprint: str
    weights_hash: str
    base: str
    trained: bool
    config: Mapping[str, Any]
    path: str | None
    """Folder or Hub name; None for weights that are made of the base alone."""


def register(
    db: Session, found: Inspected, *, run_id: UUID | None = None, scores: Scores | None = None
) -> UUID:
    """The row of a set of weights, new or known; a row keeps what it has. Returns its id."""
    values = asdict(found) | {"run_id": run_id, "scores": scores or {}}
    new = insert(Checkpoint).values(**values)
    written = new.on_conflict_do_update(
        index_elements=["weights_hash"],
        set_={
            "name": new.excluded.name,
            "fingerprint": new.excluded.fingerprint,
            "path": func.coalesce(new.excluded.path, Checkpoint.path),
            "run_id": func.coalesce(Checkpoint.run_id, new.excluded.run_id),
            "scores": Checkpoint.scores.op("||")(new.excluded.scores),
        },
    )
    made: UUID | None = db.scalar(written.returning(Checkpoint.id))
    assert made is not None  # noqa: S101 - an upsert returns its row
    return made


def active(db: Session) -> Checkpoint | None:
    """The one that serves; None where none was promoted yet."""
    found: Checkpoint | None = db.scalar(select(Checkpoint).where(Checkpoint.active))
    return found


def active_id(db: Session) -> UUID | None:
    """Id of the one that serves."""
    found: UUID | None = db.scalar(select(Checkpoint.id).where(Checkpoint.active))
    return found


def find(db: Session, named: str) -> Checkpoint:
    """A checkpoint by its id, or the newest one of that name that has weights.

    Raises:
        UnknownCheckpoint: neither.
    """
    try:
        found = db.get(Checkpoint, UUID(named))
    except ValueError:
        found = db.scalar(
            select(Checkpoint)
            .where(Checkpoint.name == named, Checkpoint.path.is_not(None))
            .order_by(Checkpoint.created_at.desc())
            .limit(1)
        )
    if found is None:
        raise UnknownCheckpoint(
            f"no checkpoint has the id or name {named[:100]!r}",
            field="checkpoint",
            remedy="Look at GET /v1/checkpoints.",
        )
    return found


def score(db: Session, checkpoint_id: UUID, scores: Scores) -> Checkpoint:
    """Keep an evaluation's numbers with a checkpoint; a set scored before is replaced.

    Raises:
        UnknownCheckpoint: no such row.
    """
    written: Checkpoint | None = db.scalar(
        update(Checkpoint)
        .where(Checkpoint.id == checkpoint_id)
        .values(scores=Checkpoint.scores.op("||")(scores))
        .returning(Checkpoint)
    )
    return written or find(db, str(checkpoint_id))


def promote(
    db: Session, checkpoint_id: UUID, *, margin: float, force: str | None = None
) -> tuple[Checkpoint, Verdict]:
    """Make a checkpoint the one that serves, if the gate lets it through.

    Its report is kept either way: commit the transaction before telling a refusal. The active one
    again is promoted without a question.

    Args:
        db: a transaction; others that promote wait until it is over.
        checkpoint_id: of the candidate.
        margin: of the gate.
        force: why it is promoted whatever the gate says; kept in the report.
    Raises:
        UnknownCheckpoint: no such row.
        PromotionRefused: it has no weights of its own that could be loaded.
    """
    db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PROMOTION_LOCK})
    row = find(db, str(checkpoint_id))
    if row.path is None:
        raise PromotionRefused(
            f"{row.name} has no folder to load it from",
            field="checkpoint",
            remedy="Register the folder it is in with POST /v1/checkpoints.",
        )
    serving = active(db)
    if serving is not None and serving.id == row.id:
        return row, Verdict(True, ("it is the active one",), (), margin)
    verdict = judge(row.scores, serving.scores if serving else None, margin=margin)
    row.gate = _report(verdict, serving, force)
    if verdict.passed or force is not None:
        db.execute(update(Checkpoint).where(Checkpoint.active).values(active=False))
        row.active = True
        row.promoted_at = func.clock_timestamp()
    db.flush()
    db.refresh(row)
    return row, verdict


def refusal(row: Checkpoint, verdict: Verdict) -> PromotionRefused:
    """What whoever asked is told where the gate did not open."""
    return PromotionRefused(
        f"{row.name} is not promoted: {'; '.join(verdict.reasons)}",
        field="checkpoint",
        limit=verdict.margin,
        remedy="Attach the scores of `clara evaluate --json` to both checkpoints, train further, "
        "or promote it by force and say why.",
    )


def _report(verdict: Verdict, serving: Checkpoint | None, force: str | None) -> dict[str, Any]:
    """As it is kept: the verdict, against whom, when, and what overruled it."""
    forced = {"forced": force} if force is not None else {}
    against = {"against": str(serving.id)} if serving else {}
    return verdict.as_dict() | against | forced | {"at": datetime.now(UTC).isoformat()}
