"""Purge runs: what they are told. `workers/ingesting.py` does what they say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clara.db.tables import Collection, Run, RunKind

PURGE_PASSAGES = 2_000
"""Ids per run, so that its row stays small."""


def add_purges(
    db: Session,
    collection: UUID,
    passages: Sequence[UUID],
    *,
    documents: Sequence[UUID] = (),
    wait_s: float = 0.0,
) -> list[Run]:
    """Write the runs that take passages out of a collection's indexes.

    Args:
        passages: whose rows are gone.
        documents: whose rows are gone; whatever else an index holds of them goes too.
        wait_s: seconds until the reconciler sends them by itself.
    """
    parts = [
        [str(id_) for id_ in passages[at : at + PURGE_PASSAGES]]
        for at in range(0, len(passages), PURGE_PASSAGES)
    ]
    of_documents: dict[str, Any] = {"documents": [str(id_) for id_ in documents]}
    # no reference to a collection that was deleted meanwhile
    there = db.scalar(select(Collection.id).where(Collection.id == collection))
    made = [
        Run(
            kind=RunKind.PURGE,
            collection_id=there,
            inputs={"collection_id": str(collection), "passages": part}
            | (of_documents if documents and at == 0 else {}),
            total=len(part),
            queued_at=func.clock_timestamp() + timedelta(seconds=wait_s),
        )
        for at, part in enumerate(parts or ([[]] if documents else []))
    ]
    db.add_all(made)
    db.flush()
    return made
