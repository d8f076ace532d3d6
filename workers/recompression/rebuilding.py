"""A recompression that makes the lexical index anew too: copied in visits, then switched to.

The index is no part of a transaction of the record. It takes over inside the one that says so,
right before the commit and while the run's row is held: killed in between, the new one is searched
already, the record says that it is still built, and so everything is written to it either way. The
next visit switches again, which changes nothing, and commits. What is not searched any more is
deleted by a purge run of that commit, or, where the rebuild ended otherwise, of the reconciler's.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from clara.errors import IndexMismatch
from clara.pipeline import rebuild as index
from clara.pipeline.rebuild import Copied
from clara.retrieval.ports import LexicalIndex
from workers import runs
from workers.purging import add_stray_purge
from workers.recompression.visit import Next, Phase, Visit

VISIT_S = 120.0
"""Seconds of copying in one visit."""

ROUNDS = 3
"""Times a copy is made where the index then holds less than the record."""


def is_due(visit: Visit) -> bool:
    """Whether a rebuild was asked for, and is not done yet."""
    return visit.rebuilds and not visit.state.get("rebuild", {}).get("whole")


def rebuild(visit: Visit) -> Next:
    """Copy the record into a new index, beside the one that is searched."""
    ready = visit.loaded.get(visit.checkpoint_id)
    copied = _going_on(visit) or _begin(visit, ready.lexical)
    ended = index.copy(
        visit.collection,
        copied,
        ready.lexical,
        open_db=visit.open_db,
        tokenizer=ready.tokenizer,
        doc_max_length=ready.models.checkpoint.config.doc_max_length,
        budget_s=VISIT_S,
        on_page=lambda now: _save(visit, now),
        stopped=visit.stopped,
    )
    if not ended:
        runs.pause(visit.open_db, visit.held)
        return True
    if not index.is_whole(visit.open_db, visit.collection, ready.lexical, copied.number):
        return _again(visit, copied)
    visit.state["rebuild"]["whole"] = True
    return visit.go_on(Phase.SWITCHING)


def where(visit: Visit) -> LexicalIndex | None:
    """Where the new index is; None where none is wanted.

    It is asked for something first: one that is away then fails before the collection is locked.

    Raises:
        IndexUnavailable: it does not answer.
    """
    if not visit.rebuilds:
        return None
    found = visit.loaded.get(visit.checkpoint_id).lexical
    found.generations(visit.collection)
    return found


def is_built(db: Session, visit: Visit) -> bool:
    """Whether everything is still written to the new index; the collection is locked."""
    now = index.words(db, visit.collection)
    return now is not None and now.building == visit.state["rebuild"]["number"]


def take_over(db: Session, visit: Visit, lexical: LexicalIndex) -> None:
    """Let the new index be searched: the last step of the transaction, after all that may fail."""
    number = visit.state["rebuild"]["number"]
    index.end(db, visit.collection, number)
    add_stray_purge(db, visit.collection)
    lexical.switch(visit.collection, number)


def _begin(visit: Visit, lexical: LexicalIndex) -> Copied:
    copied = Copied(index.begin(visit.open_db, visit.collection, lexical))
    _save(visit, copied)
    return copied


def _going_on(visit: Visit) -> Copied | None:
    """What earlier visits have copied; None where nothing is built any more, or not yet."""
    state: dict[str, Any] = visit.state.get("rebuild", {})
    if not state:
        return None
    with visit.open_db() as db:
        if not is_built(db, visit):
            return None
    after = UUID(state["after"]) if state["after"] else None
    return Copied(state["number"], after, state["passages"], state["seconds"])


def _save(visit: Visit, copied: Copied) -> None:
    rounds = visit.state.get("rebuild", {}).get("rounds", 0)
    kept = asdict(copied) | {"after": str(copied.after) if copied.after else None}
    visit.state["rebuild"] = kept | {"rounds": rounds}
    total = max(visit.state["plan"]["passages"], copied.passages)
    with visit.open_db.begin() as db:
        visit.keep(db, Phase.REBUILDING, done=copied.passages, total=total)


def _again(visit: Visit, copied: Copied) -> Phase:
    """Somebody deleted what was built, or documents were just being deleted.

    Raises:
        IndexMismatch: it is so each time.
    """
    rounds = visit.state["rebuild"]["rounds"] + 1
    if rounds >= ROUNDS:
        raise IndexMismatch(
            f"lexical index {copied.number} holds less than the record, {ROUNDS} times in a row",
            field="index",
            limit=ROUNDS,
            remedy="Look whether something else deletes from the index, then ask for it again.",
        )
    visit.state["rebuild"]["rounds"] = rounds
    _save(visit, Copied(copied.number, seconds=copied.seconds))
    return Phase.REBUILDING
