"""What a question may see of the record, and that it sees one state of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Select, Uuid, any_, literal, select, update
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Passage
from clara.filters import Filter
from clara.pipeline.conditions import fulfils
from clara.types import Candidate

T = TypeVar("T")


@dataclass(frozen=True)
class Read:
    """A passage as it stands in the record, with its ranks and its score."""

    candidate: Candidate
    document_id: UUID
    title: str
    start: int
    end: int
    text: str
    score: float = 0.0


class Members:
    """A scope of hybrid search: passages of a collection that are in the record and fulfil filters.

    Safe to share between the threads of one search.
    """

    def __init__(self, open_db: OpenDb, collection: UUID, filters: Sequence[Filter]) -> None:
        self._open_db = open_db
        self._wanted: Select[Any] = select(Passage.id).where(
            Passage.collection_id == collection, *fulfils(filters)
        )
        self._lock = Lock()
        self._members: set[UUID] | None = None

    def admits(self, passages: Sequence[UUID]) -> set[UUID]:
        """Those of some passages that belong to it."""
        with self._open_db() as db:
            return set(db.scalars(self._wanted.where(among(Passage.id, passages))))

    def members(self) -> set[UUID]:
        """All of them, asked for once."""
        with self._lock:
            if self._members is None:
                with self._open_db() as db:
                    self._members = set(db.scalars(self._wanted))
            return self._members


def read(candidates: Sequence[Candidate], open_db: OpenDb) -> list[Read]:
    """The candidates' words, in one look; what the record does not know is left out."""
    wanted = [candidate.passage_id for candidate in candidates]
    columns = (Passage.id, Passage.document_id, Passage.title, Passage.start, Passage.end)
    with open_db() as db:
        rows = db.execute(select(*columns, Passage.text).where(among(Passage.id, wanted)))
        found = {row[0]: row[1:] for row in rows}
    return [Read(c, *found[c.passage_id]) for c in candidates if c.passage_id in found]


def among(column: Any, ids: Iterable[UUID]) -> ColumnElement[bool]:
    """As one array: a list of a thousand ids takes longer to write down than to look up."""
    return column == any_(literal(list(ids), ARRAY(Uuid)))  # type: ignore[no-any-return]


def has_passages(collection: UUID, open_db: OpenDb) -> bool:
    """Whether there is anything to find."""
    some = select(Passage.id).where(Passage.collection_id == collection).limit(1)
    with open_db() as db:
        return db.scalar(some) is not None


def steady(collection: UUID, open_db: OpenDb, look: Callable[[], T]) -> T:
    """What `look` finds while no passage of the collection gives way to another.

    New passages are in both indexes before they take the place of the old ones in the record, and
    the old ones leave the indexes after. So a look during which nothing is replaced finds every
    document once; one that is overtaken would miss it, and is done again with replacing held up.
    """
    before = _replaced(collection, open_db)
    found = look()
    if _replaced(collection, open_db) == before:
        return found
    with open_db.begin() as db:
        db.execute(
            select(Collection.id).where(Collection.id == collection).with_for_update(read=True)
        )
        return look()


def note_replaced(db: Session, collection: UUID) -> None:
    """Say in the transaction that replaces passages that it does; waits for who holds it up."""
    db.execute(
        update(Collection)
        .where(Collection.id == collection)
        .values(replaced=Collection.replaced + 1)
    )


def _replaced(collection: UUID, open_db: OpenDb) -> int | None:
    with open_db() as db:
        return db.scalar(select(Collection.replaced).where(Collection.id == collection))
