"""What a night says of each collection: what was stale, what was done, what remains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from clara.db.tables import Run, RunKind, RunStatus

EMPTY = "empty"
"""It holds no passage."""
BUSY = "busy"
"""Somebody asked for a recompression that was still at work; the night left it alone."""
CURRENT = "current"
"""Nothing was stale."""
DONE = "done"
"""Everything that was stale is made anew."""
PAUSED = "paused"
"""The night was over before; the next one goes on."""
REFUSED = "refused"
"""The recall gate kept the new generation from answering."""
FAILED = "failed"
CANCELLED = "cancelled"

UNTOUCHED = (EMPTY, BUSY)
"""Of those collections a night does nothing."""

Entry = dict[str, Any]


def collected(db: Session, night_run: UUID, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries by collection, each with what its recompression came to."""
    children = select(Run).where(Run.parent_id == night_run, Run.kind == RunKind.RECOMPRESS)
    ended = {str(run.id): _outcome(run) for run in db.scalars(children)}
    return {id_: entry | ended.get(entry.get("run_id", ""), {}) for id_, entry in entries.items()}


def totals(entries: Mapping[str, Entry]) -> dict[str, int]:
    """Sums over all collections, in passages; `collections` and `failed` in collections."""
    rows = list(entries.values())
    audits = [row.get("audit", {}) for row in rows]
    return {
        "collections": len(rows),
        "stale": sum(sum(row.get("stale", {}).values()) for row in rows),
        "done": sum(row.get("done", 0) for row in rows),
        "remains": sum(row.get("remains", 0) for row in rows),
        "failed": sum(row.get("outcome") in (FAILED, REFUSED) for row in rows),
        "audited": sum(found.get("audited", 0) for found in audits),
        "as_text": sum(found.get("as_text", 0) for found in audits),
    }


def _outcome(run: Run) -> Entry:
    plan, result = run.details.get("plan") or {}, run.result or {}
    found = result.get("stale") or plan.get("stale") or {}
    stale = {reason: count for reason, count in found.items() if count}
    remains = int(result.get("remains", 0))
    entry: Entry = {
        "outcome": _word(run, sum(stale.values()), remains),
        "stale": stale,
        "done": _done(run, plan, remains),
        "remains": remains,
        "seconds": _seconds(run),
    }
    if run.status is RunStatus.FAILED and run.error:
        entry["error"] = {k: value for k, value in run.error.items() if k != "traceback"}
    return entry


def _done(run: Run, plan: Mapping[str, Any], remains: int) -> int:
    """Latents made. Parts count those of their last attempt; what remains is counted for sure."""
    counted = int((run.result or {}).get("done", run.done))
    ended_well = run.status is RunStatus.SUCCEEDED
    return max(counted, int(plan.get("to_make", 0)) - remains) if ended_well else counted


def _word(run: Run, stale: int, remains: int) -> str:
    if run.status is RunStatus.CANCELLED:
        return CANCELLED
    if run.status is RunStatus.FAILED:
        return REFUSED if (run.error or {}).get("code") == "generation-refused" else FAILED
    if remains:
        return PAUSED
    return DONE if stale else CURRENT


def _seconds(run: Run) -> float:
    if run.started_at is None or run.finished_at is None:
        return 0.0
    return round((run.finished_at - run.started_at).total_seconds(), 3)
