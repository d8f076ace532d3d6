"""What a collection lacks of a fingerprint: cut into ranges, and made range by range.

What is lacking is asked of the record each time, so whatever a kill interrupts goes on where the
last page was committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, exists, func, literal, not_, select
from sqlalchemy.orm import Session

from clara.db.tables import Latent, Passage
from clara.errors import Cancelled
from clara.pipeline.compress import PAGE, Compressing, compress_page, read_page


@dataclass(frozen=True)
class Range:
    """Passages of a collection by id: `first` included, `before` not; None is no bound."""

    collection: UUID
    first: UUID | None
    before: UUID | None
    passages: int = 0
    """That lacked their latent when it was cut."""


@dataclass
class Made:
    """What came of a range."""

    latents: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: list[UUID] = field(default_factory=list)
    """Passages this checkpoint cannot read; they are answered from text."""
    ended: bool = False
    """Whether the range was gone through to its end."""


def left(collection: UUID, fingerprint: str, skipped: Sequence[UUID] = ()) -> Any:
    """Select of the ids of passages without a latent of this fingerprint, some left out."""
    latent = exists().where(Latent.passage_id == Passage.id, Latent.fingerprint == fingerprint)
    wanted = select(Passage.id).where(Passage.collection_id == collection, ~latent)
    # as one array: there may be more of them than a statement has parameters
    return wanted.where(not_(among(skipped))) if skipped else wanted


def among(passages: Sequence[UUID]) -> Any:
    """Whether a passage is one of some, however many they are."""
    return Passage.id == any_(literal(list(passages), ARRAY(Uuid)))


def count_left(
    db: Session, collection: UUID, fingerprint: str, skipped: Sequence[UUID] = ()
) -> int:
    """How many passages lack their latent."""
    wanted = left(collection, fingerprint, skipped).subquery()
    return db.scalar(select(func.count()).select_from(wanted)) or 0


def ranges(
    db: Session,
    collection: UUID,
    fingerprint: str,
    *,
    size: int,
    most: int,
    skipped: Sequence[UUID] = (),
) -> list[Range]:
    """The next ranges to work on, by id.

    Args:
        db: a transaction.
        collection: its id.
        fingerprint: of the latents that are lacking.
        size: passages of one range.
        most: ranges.
        skipped: passages that cannot be compressed.
    """
    wanted = left(collection, fingerprint, skipped).order_by(Passage.id).limit(size * most + 1)
    ids = wanted.subquery()
    number = func.row_number().over(order_by=ids.c.id) - 1
    numbered = select(ids.c.id, number.label("number"), func.count().over().label("all")).subquery()
    rows = db.execute(
        select(numbered.c.id, numbered.c.all)
        .where(numbered.c.number % size == 0)
        .order_by(numbered.c.number)
    ).all()
    firsts = [row[0] for row in rows]
    bounds = [*firsts[1:], None]
    found = min(rows[0][1], size * most) if rows else 0
    return [
        Range(collection, first, before, min(size, found - at * size))
        for at, (first, before) in enumerate(zip(firsts[:most], bounds, strict=False))
    ]


def compress_range(
    given: Range,
    compressing: Compressing,
    *,
    budget_s: float,
    on_page: Callable[[Made], None],
    stopped: Callable[[], bool],
    enough: Callable[[], bool] = lambda: False,
) -> Made:
    """Make the latents a range lacks, page by page, each kept as soon as it is made.

    Args:
        given: the passages.
        compressing: with what.
        budget_s: seconds after which it ends.
        on_page: told after each page what is made so far.
        stopped: asked before each batch.
        enough: asked after each page whether to end well, with what is made so far.
    Raises:
        Cancelled: `stopped` said so; everything up to the last page is kept.
    """
    made = Made()
    began = monotonic()
    after: UUID | None = None
    while monotonic() < began + budget_s:
        page = _page(given, after, compressing)
        if not page:
            made.ended = True
            break
        if stopped():
            raise Cancelled("recompression was stopped")
        skipped = set(compress_page(page, compressing, stopped))
        made.skipped += sorted(skipped)
        made.latents += len(page) - len(skipped)
        made.tokens += sum(one.tokens for one in page if one.id not in skipped)
        made.seconds = monotonic() - began
        after = page[-1].id
        on_page(made)
        if enough():
            break
    return made


def _page(given: Range, after: UUID | None, compressing: Compressing) -> list[Any]:
    """The next passages of a range; going forward by id passes by what cannot be compressed."""
    wanted = left(given.collection, compressing.fingerprint)
    if given.first is not None:
        wanted = wanted.where(Passage.id >= given.first)
    if given.before is not None:
        wanted = wanted.where(Passage.id < given.before)
    if after is not None:
        wanted = wanted.where(Passage.id > after)
    with compressing.open_db() as db:
        return list(read_page(db, wanted.order_by(Passage.id).limit(PAGE)))
