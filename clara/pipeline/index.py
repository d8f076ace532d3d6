"""Documents become searchable: split, embed, write to both indexes, then to the record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from sqlalchemy import case, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Document, DocumentStatus, Passage
from clara.errors import Cancelled, ClaraError
from clara.pipeline.reading import Tokenizer, reading, shown_title, split_document
from clara.pipeline.rebuild import Words, words
from clara.pipeline.record import note_replaced
from clara.retrieval.ports import DenseIndex, LexicalIndex
from clara.types import PassageSpan, PassageText

if TYPE_CHECKING:
    from clara.serving.encoding import EncoderOnEngine

log = logging.getLogger(__name__)

BATCH_CHARS = 200_000
"""Characters of text indexed at a time: some 300 passages, a second or two of embedding."""


Replaced = Callable[[Session, UUID, Sequence[UUID]], Callable[[], None]]
"""Told in the transaction that replaces passages which ones must leave a collection's indexes; what
it returns is called once they have, and never where this process dies in between."""


@dataclass(frozen=True)
class Indexing:
    """What indexing needs."""

    open_db: OpenDb
    lexical: LexicalIndex
    dense: DenseIndex
    encoder: EncoderOnEngine
    tokenizer: Tokenizer
    doc_max_length: int
    """Tokens a passage may have, title line included: the checkpoint's."""


_searchable = case(
    (Document.status == DocumentStatus.PENDING, DocumentStatus.SEARCHABLE), else_=Document.status
)
"""A second copy of a run, later than the compressor, takes nothing back."""


@dataclass(frozen=True)
class _Prepared:
    """One document with its passages, before anything is written."""

    document: Document
    spans: Sequence[PassageSpan]
    texts: Sequence[PassageText]


def index_documents(
    ids: Sequence[UUID],
    indexing: Indexing,
    *,
    on_batch: Callable[[int], None],
    stopped: Callable[[], bool],
    on_replaced: Replaced,
) -> int:
    """Make pending documents searchable; safe to run twice. Returns passages written.

    A document that cannot be indexed is marked `failed` with the reason; the others go on.

    Args:
        on_batch: told after each batch how many documents are dealt with.
        stopped: asked between batches.
        on_replaced: remembers what is to be done should this process die.
    Raises:
        IndexUnavailable: an index does not answer; what was not finished stays pending.
        Cancelled: `stopped` said so.
    """
    written = done = 0
    for batch in _batches(ids, indexing.open_db):
        if stopped():
            raise Cancelled("indexing was stopped")
        prepared = [ready for document in batch if (ready := _prepare(document, indexing))]
        written += _write(prepared, indexing, on_replaced)
        done += len(batch)
        on_batch(done)
    return written


def remove_passages(collection: UUID, passages: Sequence[UUID], indexing: Indexing) -> None:
    """Take passages whose rows are gone out of both indexes; safe to run twice.

    The lexical index is written first and cleaned last: it knows every passage of a document that
    the dense one holds.
    """
    indexing.dense.delete(collection, passages)
    indexing.lexical.delete(collection, passages)


def remove_documents(
    collection: UUID, documents: Sequence[UUID], passages: Sequence[UUID], indexing: Indexing
) -> None:
    """Take documents whose rows are gone out of both indexes; safe to run twice.

    Args:
        passages: those the record knew; a worker that died may have left others in the indexes.
    """
    left = [indexing.lexical.held(collection, document) for document in documents]
    remove_passages(collection, list({*passages, *(id_ for ids in left for id_ in ids)}), indexing)


def remove_collection(collection: UUID, indexing: Indexing) -> None:
    """Take a collection whose rows are gone out of both indexes; safe to run twice."""
    indexing.lexical.drop(collection)
    indexing.dense.drop(collection)


def passage_id(document: Document, span: PassageSpan) -> UUID:
    """Follows from document, version and span, so that indexing twice writes the same rows.

    No later version has it again: who takes out what was replaced can do so at any time.
    """
    return uuid5(document.id, f"{document.version}:{span.start}:{span.end}")


def _batches(ids: Sequence[UUID], open_db: OpenDb) -> list[list[Document]]:
    """Documents still pending, in batches of about BATCH_CHARS characters."""
    with open_db() as db:
        pending = db.scalars(
            select(Document)
            .where(Document.id.in_(ids), Document.status == DocumentStatus.PENDING)
            .order_by(Document.id)
        ).all()
    batches: list[list[Document]] = []
    room = 0
    for document in pending:
        if room <= 0:
            batches.append([])
            room = BATCH_CHARS
        batches[-1].append(document)
        room -= len(document.text) + 200  # a short document costs a passage too
    return batches


def _prepare(document: Document, indexing: Indexing) -> _Prepared | None:
    limit = indexing.doc_max_length
    title = shown_title(document.title, indexing.tokenizer, max_tokens=limit)
    try:
        spans = split_document(title, document.text, indexing.tokenizer, max_tokens=limit)
    except ClaraError as error:
        log.warning("document %s cannot be indexed: %s", document.id, error)
        _mark_failed(document, error, indexing.open_db)
        return None
    texts = [
        PassageText(
            id=passage_id(document, span),
            document_id=document.id,
            title=title,
            text=document.text[span.start : span.end],
        )
        for span in spans
    ]
    return _Prepared(document, spans, texts)


def _write(prepared: Sequence[_Prepared], indexing: Indexing, on_replaced: Replaced) -> int:
    """Indexes first, record last: a passage is never in the record and missing from an index.

    The other way round, an index may know passages the record does not (of a replaced document,
    or after a crash); a search leaves those out. Where passages take the place of others, the
    record changes from the ones to the others at once, and only then do the old ones leave.
    """
    texts = [text for ready in prepared for text in ready.texts]
    if not texts:
        return 0
    collection = prepared[0].document.collection_id
    vectors = indexing.encoder.encode([reading(text.title, text.text) for text in texts])
    written_to = _put_words(collection, texts, indexing)
    indexing.dense.put(
        collection, {text.id: vector for text, vector in zip(texts, vectors, strict=True)}
    )
    recorded = False
    while not recorded:
        with indexing.open_db.begin() as db:
            # before the documents: in the order in which a deletion of the collection takes them
            if recorded := words(db, collection, keep=True) in (written_to, None):
                replaced = _write_rows(db, collection, prepared)
                settled = on_replaced(db, collection, replaced) if replaced else None
        if not recorded:  # another lexical index was begun, or took over
            written_to = _put_words(collection, texts, indexing)
    if settled:
        remove_passages(collection, replaced, indexing)
        settled()
    return len(texts)


def _put_words(collection: UUID, texts: Sequence[PassageText], indexing: Indexing) -> Words | None:
    """Into the lexical index that is searched, and into one that is built beside it. Returns which
    there were."""
    with indexing.open_db() as db:
        now = words(db, collection)
    indexing.lexical.put(collection, texts)
    if now and now.building:
        indexing.lexical.put(collection, texts, generation=now.building)
    return now


def _write_rows(db: Session, collection: UUID, prepared: Sequence[_Prepared]) -> list[UUID]:
    """Swap the passages of a batch of documents at once, three statements for all of them.

    Returns the passages to take out of the indexes again: those of the version before, and those
    of documents that were written again or deleted meanwhile, unless a second copy of this run has
    put them in the record.
    """
    current = _set_searchable(db, [ready.document for ready in prepared])
    kept = [ready for ready in prepared if ready.document.id in current]
    new = {text.id for ready in kept for text in ready.texts}
    late = {t.id for r in prepared if r.document.id not in current for t in r.texts}
    late -= set(db.scalars(select(Passage.id).where(Passage.id.in_(late))))
    old = db.scalars(
        delete(Passage)
        .where(Passage.document_id.in_(current), Passage.id.not_in(new))
        .returning(Passage.id)
    ).all()
    if rows := [row for ready in kept for row in _rows(ready)]:
        db.execute(insert(Passage).on_conflict_do_nothing(index_elements=["id"]), rows)
    if old:
        note_replaced(db, collection)
    return [*old, *late]


def _set_searchable(db: Session, documents: Sequence[Document]) -> set[UUID]:
    """Mark documents that are still wanted with the text that was split; those are returned."""
    as_split = [(document.id, document.version) for document in documents]
    locked = db.scalars(  # in one order, so that two batches never wait for each other
        select(Document.id)
        .where(
            tuple_(Document.id, Document.version).in_(as_split),
            Document.status != DocumentStatus.FAILED,  # its run was cancelled meanwhile
        )
        .order_by(Document.id)
        .with_for_update()
    ).all()
    db.execute(
        update(Document)
        .where(Document.id.in_(locked))
        .values(status=_searchable, searchable_at=func.clock_timestamp(), error=None)
    )
    return set(locked)


def _rows(ready: _Prepared) -> list[dict[str, object]]:
    return [
        {
            "id": text.id,
            "collection_id": ready.document.collection_id,
            "document_id": ready.document.id,
            "start": span.start,
            "end": span.end,
            "tokens": span.tokens,
            "title": ready.document.title,
            "text": text.text,
            "metadata_": ready.document.metadata_,
        }
        for text, span in zip(ready.texts, ready.spans, strict=True)
    ]


def _mark_failed(document: Document, error: ClaraError, open_db: OpenDb) -> None:
    with open_db.begin() as db:
        db.execute(
            update(Document)
            .where(Document.id == document.id, Document.version == document.version)
            .values(status=DocumentStatus.FAILED, error=error.as_dict())
        )
