"""The audit of one collection in a night: whether, for how long, and what came of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

from clara import generations
from clara.db.tables import Checkpoint
from clara.errors import Cancelled, ClaraError
from clara.pipeline.fidelity import audit
from clara.settings import Settings
from workers.nights import report as night_report
from workers.runs import Held
from workers.stopping import stopping

if TYPE_CHECKING:
    from workers.nights.nights import Nightly

AUDIT_S = 120.0
"""Seconds it takes at most."""


def audited(
    collection: UUID, entry: dict[str, Any], held: Held, nightly: Nightly, ends: datetime
) -> dict[str, Any]:
    """What the audit of one collection found, or why there was none."""
    config, until = nightly.config, monotonic() + AUDIT_S
    with nightly.open_db() as db:
        active = generations.active(db, collection)
        checkpoint = db.get_one(Checkpoint, active.checkpoint_id) if active else None
    if active is None or checkpoint is None:
        return {"skipped": entry.get("outcome", "no latents")}
    if why := _not_audited(entry, checkpoint, config, ends):
        return {"skipped": why}

    def stopped() -> bool:
        late = monotonic() > until or datetime.now(UTC) >= ends
        return late or stopping() or held.stopped()

    try:
        answering = replace(nightly.loaded.get(checkpoint.id), latents_of=active.fingerprint)
        return audit(
            collection,
            answering,
            passages=config.audit_passages,
            threshold=config.audit_threshold,
            stopped=stopped,
        ).as_dict()
    except Cancelled:
        raise
    except ClaraError as error:
        if error.retryable:
            raise
        return {"error": error.as_dict()}  # the other collections still have their turn


def _not_audited(
    entry: dict[str, Any], checkpoint: Checkpoint, config: Settings, ends: datetime
) -> str | None:
    """Why a collection is not audited this night, if it is not."""
    if entry.get("outcome") in night_report.UNTOUCHED:
        return str(entry["outcome"])
    if not config.audit_passages:
        return "off"
    if not checkpoint.trained:
        return "untrained"
    return "out of time" if datetime.now(UTC) >= ends else None
