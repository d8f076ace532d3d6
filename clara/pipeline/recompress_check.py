"""Damaged latents, found before a question meets them.

Lengths are compared in SQL, which reads no block: all of them, every time. Checksums need the
bytes, gigabytes of a large collection: a few seconds of reading each time, going on where the time
before ended, so that every block has its turn within some nights.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, delete, func, select, tuple_
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Latent, Passage
from clara.types import LatentForm

SCALE_BYTES = 4
"""Of an int8 row, in front of its numbers."""

PAGE = 256
"""Blocks read at a time: 4.5 MiB at 18 KiB each."""

START = UUID(int=0)

_BLOCKS = """
    SELECT l.passage_id, l.checksum, l.created_at, l.block
    FROM latent l JOIN passage p ON p.id = l.passage_id
    WHERE p.collection_id = %s AND l.fingerprint = %s AND l.passage_id > %s
    ORDER BY l.passage_id LIMIT %s
"""

Written = tuple[UUID, datetime]
"""A block: its passage, and when it was written."""


@dataclass
class Checked:
    """How far checksums were compared."""

    blocks: int = 0
    to: UUID | None = None
    """The last passage looked at; None at the end: the next time starts anew."""
    damaged: list[Written] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As it is kept, for the next time to go on from."""
        return {"blocks": self.blocks, "to": str(self.to) if self.to else None}


def check_blocks(
    open_db: OpenDb,
    collection: UUID,
    fingerprint: str,
    *,
    after: UUID | None,
    budget_s: float,
    stopped: Callable[[], bool],
) -> Checked:
    """Compare checksums with bytes, block by block in the order of passages.

    Args:
        open_db: transactions on the record.
        collection: its id.
        fingerprint: of the blocks.
        after: where the time before ended.
        budget_s: seconds after which it ends.
        stopped: asked between pages.
    """
    checked = Checked(to=after)
    ends = monotonic() + budget_s
    while monotonic() < ends and not stopped():
        found = 0
        for passage, checksum, written, block in _blocks(
            open_db, collection, fingerprint, checked.to
        ):
            found += 1
            checked.to = passage
            if zlib.crc32(block) != checksum:
                checked.damaged.append((passage, written))
        checked.blocks += found
        if found < PAGE:
            checked.to = None
            break
    return checked


def sound(latent: Any) -> ColumnElement[bool]:
    """Whether a stored block is as long as its shape says; `latent` is the table or an alias."""
    bytes_of = case(
        (latent.form == LatentForm.INT8, latent.rows * (latent.width + SCALE_BYTES)),
        else_=latent.rows * latent.width * 2,
    )
    return and_(latent.rows >= 1, func.octet_length(latent.block) == bytes_of)


def remove_damaged(
    db: Session, collection: UUID, fingerprint: str, found: Sequence[Written]
) -> list[UUID]:
    """Delete blocks that `check_blocks` found, and those of a wrong length.

    One that was written anew since stays. Returns the passages that lost theirs.
    """
    of_collection = select(Passage.id).where(Passage.collection_id == collection)
    short = delete(Latent).where(
        Latent.fingerprint == fingerprint, ~sound(Latent), Latent.passage_id.in_(of_collection)
    )
    gone = list(db.scalars(short.returning(Latent.passage_id)))
    for at in range(0, len(found), PAGE):
        wrong = delete(Latent).where(
            Latent.fingerprint == fingerprint,
            tuple_(Latent.passage_id, Latent.created_at).in_(found[at : at + PAGE]),
        )
        gone += db.scalars(wrong.returning(Latent.passage_id))
    return gone


def _blocks(
    open_db: OpenDb, collection: UUID, fingerprint: str, after: UUID | None
) -> Iterator[tuple[UUID, int, datetime, bytes]]:
    """A page, by the driver's own cursor in binary: as text it takes four times as long."""
    with open_db() as db:
        cursor = db.connection().connection.cursor(binary=True)
        with closing(cursor):
            cursor.execute(_BLOCKS, (collection, fingerprint, after or START, PAGE))
            yield from cursor.fetchall()
