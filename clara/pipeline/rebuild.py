"""A collection's lexical index made anew from the record, beside the one that is searched.

The record says that one is being built before it is there: from that commit on no passage enters
the record that is not in both, because who writes compares what it wrote to with what the record
says then. What was in the record before is copied. So the new one lacks nothing at any moment after
the copy, and it does not matter at which moment it takes over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Collection, Passage
from clara.errors import Cancelled, UnknownCollection
from clara.pipeline.reading import Tokenizer, shown_title
from clara.retrieval.ports import LexicalIndex
from clara.types import PassageText

PAGE = 500
"""Passages read and written at a time: what a kill can lose of a copy."""


@dataclass(frozen=True)
class Words:
    """Which lexical indexes of a collection there are, as the record says. No state comes twice."""

    number: int
    """The largest one that was ever begun."""
    building: int | None
    """The one that is built beside the one that is searched: what is written goes to both."""


@dataclass
class Copied:
    """How far a copy is; written down with the run, so that another visit goes on there."""

    number: int
    """Of the index that is built."""
    after: UUID | None = None
    """The last passage that was copied."""
    passages: int = 0
    seconds: float = 0.0


def words(db: Session, collection: UUID, *, keep: bool = False) -> Words | None:
    """What to write to; None where the collection is gone.

    Args:
        db: a transaction.
        collection: its id.
        keep: whether it stays so until the commit.
    """
    row = select(Collection.lexical_number, Collection.lexical_building)
    row = row.where(Collection.id == collection)
    if keep:
        row = row.with_for_update(read=True, key_share=True)
    found = db.execute(row).one_or_none()
    return Words(*found) if found else None


def begin(open_db: OpenDb, collection: UUID, lexical: LexicalIndex) -> int:
    """Say in the record that an index is built, and make it. Returns its number, always a new one.

    Raises:
        UnknownCollection: it was deleted.
        IndexUnavailable: the index does not answer.
    """
    there = lexical.generations(collection)
    with open_db.begin() as db:
        generations.lock(db, collection)  # who wrote without knowing has committed
        now = words(db, collection)
        assert now is not None  # noqa: S101 - it is locked
        number = max(now.number, *there, 1) + 1
        _say(db, collection, Words(number, number))
    lexical.make(collection, number)
    return number


def copy(
    collection: UUID,
    copied: Copied,
    lexical: LexicalIndex,
    *,
    open_db: OpenDb,
    tokenizer: Tokenizer,
    doc_max_length: int,
    budget_s: float,
    on_page: Callable[[Copied], None],
    stopped: Callable[[], bool],
) -> bool:
    """Write the record's passages to the index that is built. Returns whether it came to the end.

    Args:
        copied: where to go on; kept up to date.
        budget_s: seconds after which it ends.
        on_page: told after each page.
        stopped: asked before each page.
    Raises:
        Cancelled: `stopped` said so.
    """
    began, before = monotonic(), copied.seconds
    while monotonic() < began + budget_s:
        if stopped():
            raise Cancelled("rebuilding the lexical index was stopped")
        with open_db() as db:
            page = _page(db, collection, copied.after, tokenizer, doc_max_length)
        if not page:
            return True
        lexical.put(collection, page, generation=copied.number)
        _take_out_deleted(open_db, collection, page, lexical, copied.number)
        copied.after = page[-1].id
        copied.passages += len(page)
        copied.seconds = before + monotonic() - began
        on_page(copied)
    return False


def is_whole(open_db: OpenDb, collection: UUID, lexical: LexicalIndex, number: int) -> bool:
    """Whether an index holds as many passages as the record: it does, unless somebody deleted it,
    or passages are just being deleted."""
    with open_db() as db:
        counted = select(func.count()).select_from(Passage)
        recorded = db.scalar(counted.where(Passage.collection_id == collection)) or 0
    return lexical.count(collection, generation=number) >= recorded


def end(db: Session, collection: UUID, number: int) -> None:
    """Say that none is built any more: in the transaction that lets it take over, or gives up."""
    _say(db, collection, Words(number, None))


def drop_strays(open_db: OpenDb, collection: UUID, lexical: LexicalIndex) -> int:
    """Delete indexes that are neither searched nor built. Returns how many; safe to run twice.

    They are listed before the record is asked, which knows of every one that is built before it is
    there.
    """
    there = lexical.generations(collection)
    with open_db() as db:
        now = words(db, collection)
    building = now.building if now else None
    strays = [one for one, active in there.items() if not active and one != building]
    for number in strays:
        lexical.drop_generation(collection, number)
    return len(strays)


def _say(db: Session, collection: UUID, now: Words) -> None:
    said = update(Collection).where(Collection.id == collection)
    said = said.values(lexical_number=now.number, lexical_building=now.building)
    if not db.execute(said.returning(Collection.id)).all():
        raise UnknownCollection(f"no collection has the id {collection}", field="collection")


def _page(
    db: Session, collection: UUID, after: UUID | None, tokenizer: Tokenizer, doc_max_length: int
) -> list[PassageText]:
    columns = (Passage.id, Passage.document_id, Passage.title, Passage.text)
    wanted = select(*columns).where(Passage.collection_id == collection)
    if after is not None:
        wanted = wanted.where(Passage.id > after)
    rows = db.execute(wanted.order_by(Passage.id).limit(PAGE)).all()
    return [
        PassageText(
            id=row.id,
            document_id=row.document_id,
            title=shown_title(row.title, tokenizer, max_tokens=doc_max_length),
            text=row.text,
        )
        for row in rows
    ]


def _take_out_deleted(
    open_db: OpenDb,
    collection: UUID,
    page: list[PassageText],
    lexical: LexicalIndex,
    number: int,
) -> None:
    """What was deleted between reading and writing: who took it out found it in the others only."""
    ids = {passage.id for passage in page}
    with open_db() as db:
        there = set(db.scalars(select(Passage.id).where(Passage.id.in_(ids))))
    if gone := ids - there:
        lexical.delete(collection, gone, generation=number)
