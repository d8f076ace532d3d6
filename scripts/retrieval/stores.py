"""The corpus in real stores: record and log of vectors in Postgres, and both lexical indexes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from clara import embedded
from clara.db.connect import OpenDb, connect, open_db
from clara.db.migrate import migrate
from clara.db.tables import Collection, Document, Passage
from clara.pipeline.reading import reading
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.lexical import elasticsearch_index
from clara.retrieval.ports import LexicalIndex
from clara.retrieval.tantivy import TantivyIndex
from clara.settings import Settings
from clara.types import PassageText

BATCH = 1_000
PARTS = 1_000
"""Values of the metadata field `part`, so that a filter can be as narrow as one in so many."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Stores:
    """A filled collection."""

    open_db: OpenDb
    collection: UUID
    lexical: dict[str, LexicalIndex]
    """By name of the engine."""
    dense: FaissIndex
    filled_s: dict[str, float]
    """Seconds that writing everything took."""


@contextmanager
def filled(
    passages: Sequence[PassageText], vectors: Vectors, config: Settings, *, encoder: str
) -> Iterator[Stores]:
    """Everything in, in a folder of its own and under a collection of its own; gone at the end.

    With `config.elasticsearch_url`, in Elasticsearch too; with `config.database_url`, in a
    database that must be empty or hold this project's tables.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        folder.chmod(0o755)  # an embedded Postgres may run as another user
        url = config.database_url or stack.enter_context(embedded.postgres(folder))
        migrate(url)
        engine = connect(url)
        stack.callback(engine.dispose)
        lexical: dict[str, LexicalIndex] = {"tantivy": TantivyIndex(folder / "tantivy")}
        if config.elasticsearch_url:
            lexical["elasticsearch"] = elasticsearch_index(config)
        dense = FaissIndex(open_db(engine), encoder=encoder, dimension=vectors.shape[1])
        stores = Stores(open_db(engine), uuid4(), lexical, dense, {})
        stack.callback(_empty, stores)
        _fill(stores, passages, vectors)
        yield stores


def embed(passages: Sequence[PassageText], encoder: SentenceEncoder, kept: Path | None) -> Vectors:
    """Unit vectors (passages, dimension), read from `kept` where they were written before."""
    if kept is not None and kept.exists():
        found: Vectors = np.load(kept, allow_pickle=False)
        if len(found) == len(passages):
            return found
    vectors = encoder.encode([reading(one.title, one.text) for one in passages])
    if kept is not None:
        np.save(kept, vectors)
    return vectors


def _fill(stores: Stores, passages: Sequence[PassageText], vectors: Vectors) -> None:
    _timed(stores, "record", lambda: _write_record(stores, passages))
    for name, index in stores.lexical.items():
        _timed(stores, name, partial(index.put, stores.collection, passages))
    by_id = {one.id: vector for one, vector in zip(passages, vectors, strict=True)}
    _timed(stores, "dense", lambda: stores.dense.put(stores.collection, by_id))


def _timed(stores: Stores, name: str, work: Callable[[], object]) -> None:
    began = perf_counter()
    work()
    stores.filled_s[name] = round(perf_counter() - began, 2)


def _write_record(stores: Stores, passages: Sequence[PassageText]) -> None:
    """A document of one passage for each."""
    with stores.open_db.begin() as db:
        db.add(Collection(id=stores.collection, name=f"bench-{stores.collection.hex[:12]}"))
        db.flush()
        for start in range(0, len(passages), BATCH):
            some = list(enumerate(passages[start : start + BATCH], start=start))
            db.execute(insert(Document), [_document(stores, one) for _, one in some])
            db.execute(insert(Passage), [_passage(stores, at, one) for at, one in some])


def _document(stores: Stores, one: PassageText) -> dict[str, object]:
    return {
        "id": one.document_id,
        "collection_id": stores.collection,
        "external_id": one.id.hex,
        "title": one.title,
        "text": one.text,
        "content_hash": "",
    }


def _passage(stores: Stores, at: int, one: PassageText) -> dict[str, object]:
    return {
        "id": one.id,
        "collection_id": stores.collection,
        "document_id": one.document_id,
        "start": 0,
        "end": len(one.text) or 1,
        "tokens": 1,
        "title": one.title,
        "text": one.text,
        "metadata_": {"part": at % PARTS},
    }


def _empty(stores: Stores) -> None:
    for index in stores.lexical.values():
        index.drop(stores.collection)
    with stores.open_db.begin() as db:
        if row := db.get(Collection, stores.collection):
            db.delete(row)
    stores.dense.drop(stores.collection)
