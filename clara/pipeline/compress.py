"""Passages get their latents, batch by batch, each batch kept as soon as it is made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Document, DocumentStatus, Latent, Passage
from clara.errors import Cancelled, TextTooLong
from clara.pipeline.latent_vectors import add_vectors
from clara.pipeline.reading import Tokenizer, reading, shown_title
from clara.pipeline.settle import answering
from clara.retrieval.ports import DenseIndex, LatentStore

if TYPE_CHECKING:
    from clara.model.compressor import Compressor
    from clara.serving.engine import Engine

log = logging.getLogger(__name__)

PAGE = 64
"""Passages fetched, compressed and committed at a time: what a kill can lose at most."""


@dataclass(frozen=True)
class Compressing:
    """What compressing needs."""

    open_db: OpenDb
    latents: LatentStore
    compressor: Compressor
    engine: Engine
    tokenizer: Tokenizer
    fingerprint: str
    doc_max_length: int
    on_processor: bool
    """Whether the models compute on the CPU, which indexing needs too."""
    vectors: DenseIndex | None = None
    """Where the checkpoint's own dense vectors go, where latents make them."""


@dataclass
class Progress:
    """How far a collection is."""

    done: int = 0
    total: int = 0
    skipped: list[UUID] = field(default_factory=list)
    """Passages this checkpoint cannot read; they are answered from text."""


@dataclass(frozen=True)
class Uncompressed:
    """A passage, as the compressor reads it."""

    id: UUID
    document_id: UUID
    title: str
    text: str
    tokens: int
    collection_id: UUID


def lacking(collection: UUID, fingerprint: str, skipped: Sequence[UUID] = ()) -> Any:
    """Select of the ids of passages that have no latent of this fingerprint yet."""
    latent = exists().where(Latent.passage_id == Passage.id, Latent.fingerprint == fingerprint)
    return select(Passage.id).where(
        Passage.collection_id == collection, ~latent, Passage.id.not_in(skipped)
    )


def compress_collection(
    collection: UUID,
    compressing: Compressing,
    *,
    budget_s: float,
    on_batch: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> Progress:
    """Make the latents a collection lacks until none is lacking or the time is used up.

    A passage is compressed once per fingerprint: what is stored already is never made again.

    Raises:
        Cancelled: `stopped` said so; everything up to the last batch is kept.
    """
    progress = _count(collection, compressing)
    ends = monotonic() + budget_s
    while monotonic() < ends:
        page = _page(collection, compressing, progress.skipped)
        if not page:
            break
        if stopped():
            raise Cancelled("compression was stopped")
        progress.skipped += compress_page(page, compressing, stopped)
        with compressing.open_db.begin() as db:
            documents = list({p.document_id for p in page})
            mark_indexed(db, collection, documents, compressing.fingerprint)
        progress.done += len(page)
        on_batch(progress)
    return progress


def mark_indexed(
    db: Session, collection: UUID, documents: Sequence[UUID], fingerprint: str
) -> None:
    """Documents of which every passage has its latent are `indexed`.

    Of the generation that answers: where another one does by now, nothing is marked.
    """
    if answering(db, collection) not in (fingerprint, None):
        return
    latent = exists().where(Latent.passage_id == Passage.id, Latent.fingerprint == fingerprint)
    waiting = exists().where(Passage.document_id == Document.id, ~latent)
    db.execute(
        update(Document)
        .where(Document.id.in_(documents), Document.status == DocumentStatus.SEARCHABLE, ~waiting)
        .values(status=DocumentStatus.INDEXED, indexed_at=func.clock_timestamp())
    )


def _count(collection: UUID, compressing: Compressing) -> Progress:
    with compressing.open_db() as db:
        total = db.scalar(
            select(func.count()).select_from(Passage).where(Passage.collection_id == collection)
        )
        missing = lacking(collection, compressing.fingerprint).subquery()
        left = db.scalar(select(func.count()).select_from(missing))
    return Progress(done=(total or 0) - (left or 0), total=total or 0)


def _page(
    collection: UUID, compressing: Compressing, skipped: Sequence[UUID]
) -> list[Uncompressed]:
    """The next passages to compress, with the words the compressor reads."""
    with compressing.open_db() as db:
        return read_page(db, lacking(collection, compressing.fingerprint, skipped).limit(PAGE))


def read_page(db: Session, wanted: Any) -> list[Uncompressed]:
    """The words of the passages whose ids a select gives, by id."""
    ids = wanted.subquery()
    columns = (Passage.id, Passage.document_id, Passage.title, Passage.text, Passage.tokens)
    rows = db.execute(
        select(*columns, Passage.collection_id)
        .join(ids, ids.c.id == Passage.id)
        .order_by(Passage.id)
    )
    return [Uncompressed(*row) for row in rows]


def compress_page(
    page: Sequence[Uncompressed], compressing: Compressing, stopped: Callable[[], bool]
) -> list[UUID]:
    """Compress and keep one page. Returns the passages that could not be.

    Raises:
        Cancelled: `stopped` said so between two batches; nothing of the page is kept.
    """
    limit = compressing.doc_max_length
    texts = [
        reading(shown_title(p.title, compressing.tokenizer, max_tokens=limit), p.text) for p in page
    ]
    try:
        blocks = compressing.engine.compress(compressing.compressor, texts, stopped)
    except TextTooLong as error:
        if len(page) > 1:  # find the one, so that it does not stop the others
            halves = page[: len(page) // 2], page[len(page) // 2 :]
            return [bad for half in halves for bad in compress_page(half, compressing, stopped)]
        log.warning("passage %s stays text: %s", page[0].id, error)
        return [page[0].id]
    made = {passage.id: block for passage, block in zip(page, blocks, strict=True)}
    if compressing.vectors is not None:  # first: latents that are there are not looked at again
        add_vectors(
            page[0].collection_id,
            made,
            compressing.vectors,
            open_db=compressing.open_db,
            engine=compressing.engine,
        )
    compressing.latents.put(compressing.fingerprint, made)
    return []
