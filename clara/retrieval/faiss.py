"""Dense search: Postgres keeps the vectors as a log, every process follows it into FAISS.

Writers append to the table `dense_entry`; before each search a process applies the rows it has not
seen. There is nothing to elect, to hand over, or to repair after a crash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import DenseEntry
from clara.errors import IndexMismatch, IndexUnavailable
from clara.types import Hit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

STORED = np.dtype("<f2")
"""Numbers of a stored vector."""

PAGE = 5_000
"""Rows of the log read at a time: 4 MB at dimension 384."""

EVERYTHING = UUID(int=0)
"""Stands for the whole collection in a removal."""


class FaissIndex:
    """DenseIndex over the log; safe to share between threads.

    Deleting and dropping concern the vectors of every encoder; all else only this one's.

    Args:
        encoder: name of the sentence encoder whose vectors these are.
        dimension: numbers per vector.
    """

    def __init__(self, open_db: OpenDb, *, encoder: str, dimension: int) -> None:
        self.dimension = dimension
        self._open_db = open_db
        self._encoder = encoder
        self._lock = Lock()
        self._copies: dict[UUID, _Copy] = {}

    def put(self, collection: UUID, vectors: Mapping[UUID, Vectors]) -> None:
        """Write unit vectors (dimension,) by passage id.

        Raises:
            IndexMismatch: a vector of another dimension.
        """
        for passage, vector in vectors.items():
            if vector.shape != (self.dimension,):
                raise _wrong_dimension(passage, vector.size, self.dimension)
        if not vectors:
            return
        passages = list(vectors)
        with self._writing(collection) as db:
            db.execute(
                delete(DenseEntry).where(
                    DenseEntry.collection_id == collection,
                    DenseEntry.encoder == self._encoder,
                    DenseEntry.passage_id.in_(passages),
                )
            )
            _append(
                db,
                collection,
                [(passage, self._encoder, _pack(vectors[passage])) for passage in passages],
            )

    def delete(self, collection: UUID, passages: Iterable[UUID]) -> None:
        """Remove by id: a vector's row gives way to a removal, for the processes that read it."""
        ids = list(passages)
        if not ids:
            return
        with self._writing(collection) as db:
            gone = db.execute(
                delete(DenseEntry)
                .where(
                    DenseEntry.collection_id == collection,
                    DenseEntry.passage_id.in_(ids),
                    DenseEntry.vector.is_not(None),
                )
                .returning(DenseEntry.passage_id, DenseEntry.encoder)
            ).all()
            _append(db, collection, [(passage, encoder, None) for passage, encoder in gone])

    def drop(self, collection: UUID) -> None:
        """Forget a collection; one row per encoder stays, for the processes that hold a copy."""
        with self._writing(collection) as db:
            of_collection = DenseEntry.collection_id == collection
            encoders = db.scalars(select(DenseEntry.encoder).where(of_collection).distinct()).all()
            db.execute(delete(DenseEntry).where(of_collection))
            _append(db, collection, [(EVERYTHING, encoder, None) for encoder in encoders])

    def search(self, collection: UUID, vector: Vectors, *, limit: int) -> list[Hit]:
        """Best first by cosine, over every write committed before."""
        self._check(vector)
        if limit < 1:
            return []
        with self._current(collection) as copy:
            return copy.search(vector, limit)

    def scores(
        self, collection: UUID, vector: Vectors, passages: Sequence[UUID]
    ) -> dict[UUID, float]:
        """Exact cosine of given passages; those not in the index are left out."""
        self._check(vector)
        with self._current(collection) as copy:
            return copy.scores(vector, passages)

    def count(self, collection: UUID) -> int:
        """Vectors held; asks the log, so that it costs no copy of the vectors."""
        with _explained(), self._open_db() as db:
            found = db.scalar(
                select(func.count()).where(
                    DenseEntry.collection_id == collection,
                    DenseEntry.encoder == self._encoder,
                    DenseEntry.vector.is_not(None),
                )
            )
        return found or 0

    def _check(self, vector: Vectors) -> None:
        if vector.shape != (self.dimension,):
            raise IndexMismatch(
                f"the question's vector has shape {vector.shape}, the index holds "
                f"({self.dimension},)",
                remedy="Ask with the sentence encoder the collection was indexed with.",
            )

    @contextmanager
    def _writing(self, collection: UUID) -> Iterator[Session]:
        """A transaction alone with this collection until it is committed.

        The lock comes before any `seq` is drawn: whoever draws the smaller one is visible first.
        Plans are made for the values at hand: a prepared one compares every row of the collection
        with every id of a long list (50 ms for 300 ids and 9,000 rows, instead of 3).
        """
        digest = hashlib.sha256(b"dense_entry" + collection.bytes).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        with _explained(), self._open_db.begin() as db:
            planned = func.set_config("plan_cache_mode", "force_custom_plan", True)
            db.execute(select(func.pg_advisory_xact_lock(key), planned))
            yield db

    @contextmanager
    def _current(self, collection: UUID) -> Iterator[_Copy]:
        """This process's copy, brought up to date and held while it is used."""
        with self._lock:
            copy = self._copies.get(collection) or _Copy(self.dimension)
            self._copies[collection] = copy
        with copy.lock:
            _compute_alone()
            with _explained(), self._open_db() as db:
                while rows := self._news(db, collection, copy.watermark):
                    copy.apply(rows)
                    if len(rows) < PAGE:
                        break
            yield copy

    def _news(self, db: Session, collection: UUID, watermark: int) -> Sequence[Any]:
        """The next rows of the log: seq, passage_id, vector."""
        return db.execute(
            select(DenseEntry.seq, DenseEntry.passage_id, DenseEntry.vector)
            .where(
                DenseEntry.collection_id == collection,
                DenseEntry.encoder == self._encoder,
                DenseEntry.seq > watermark,
            )
            .order_by(DenseEntry.seq)
            .limit(PAGE)
        ).all()


def _compute_alone() -> None:
    """Let FAISS start no helper threads for the calling thread; others keep their setting.

    One question gains nothing from them. But FAISS and torch share OpenMP in a process, and a team
    of threads for every task thread made the language model's decoding 1.5 to 1.9 times slower on
    2 cores, long after the search had ended (BENCHMARKS.md, threads).
    """
    import faiss

    faiss.omp_set_num_threads(1)


class _Copy:
    """One collection's vectors in this process's memory; FAISS knows them by `seq`.

    Hold `lock` around every method.
    """

    def __init__(self, dimension: int) -> None:
        self.lock = Lock()
        self.watermark = 0
        self._dimension = dimension
        self._index = _empty(dimension)
        self._seq: dict[UUID, int] = {}
        self._passage: dict[int, UUID] = {}

    def apply(self, rows: Sequence[Any]) -> None:
        """Follow the log: rows in the order of `seq`. Changes nothing if one of them is unfit."""
        added: dict[UUID, tuple[int, bytes]] = {}
        removed: set[UUID] = set()
        emptied = False
        for seq, passage, block in rows:
            if passage == EVERYTHING:
                added, emptied = {}, True
                continue
            added.pop(passage, None)
            removed.add(passage)
            if block is not None:
                if len(block) != self._dimension * STORED.itemsize:
                    raise _wrong_dimension(passage, len(block) / STORED.itemsize, self._dimension)
                added[passage] = (seq, block)
        if emptied:
            self._index, self._seq, self._passage = _empty(self._dimension), {}, {}
        self._remove(removed)
        self._add(added)
        self.watermark = rows[-1][0]

    def search(self, vector: Vectors, limit: int) -> list[Hit]:
        if not self._seq:
            return []
        cosines, seqs = self._index.search(vector[None, :], min(limit, len(self._seq)))
        hits = [
            Hit(self._passage[seq], _clip(cosine))
            for cosine, seq in zip(cosines[0].tolist(), seqs[0].tolist(), strict=True)
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.passage_id))

    def scores(self, vector: Vectors, passages: Sequence[UUID]) -> dict[UUID, float]:
        known = [passage for passage in passages if passage in self._seq]
        if not known:
            return {}
        seqs = np.array([self._seq[passage] for passage in known], dtype=np.int64)
        cosines = self._index.reconstruct_batch(seqs) @ vector
        return {p: _clip(cosine) for p, cosine in zip(known, cosines.tolist(), strict=True)}

    def _remove(self, passages: Iterable[UUID]) -> None:
        seqs = [self._seq.pop(passage) for passage in passages if passage in self._seq]
        if not seqs:
            return
        for seq in seqs:
            del self._passage[seq]
        self._index.remove_ids(np.array(seqs, dtype=np.int64))

    def _add(self, entries: Mapping[UUID, tuple[int, bytes]]) -> None:
        if not entries:
            return
        blocks = b"".join(block for _, block in entries.values())
        vectors = np.frombuffer(blocks, STORED).reshape(-1, self._dimension).astype(np.float32)
        # float16 changed the lengths in the fourth digit
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        seqs = [seq for seq, _ in entries.values()]
        self._index.add_with_ids(vectors, np.array(seqs, dtype=np.int64))
        self._seq.update(zip(entries, seqs, strict=True))
        self._passage.update(zip(seqs, entries, strict=True))


def _empty(dimension: int) -> Any:
    """Exact search; imported here, since who only writes needs no FAISS."""
    import faiss

    return faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))


def _pack(vector: Vectors) -> bytes:
    return vector.astype(STORED).tobytes()


def _append(
    db: Session, collection: UUID, entries: Sequence[tuple[UUID, str, bytes | None]]
) -> None:
    """Add rows for (passage, encoder, vector or removal).

    By the table rather than the class: the rows' new keys are not asked back, which halves it.
    """
    if not entries:
        return
    db.execute(
        insert(DenseEntry.__table__),  # type: ignore[arg-type]
        [
            {
                "collection_id": collection,
                "passage_id": passage,
                "encoder": encoder,
                "vector": vector,
            }
            for passage, encoder, vector in entries
        ],
    )


def _clip(cosine: float) -> float:
    return min(1.0, max(-1.0, cosine))


def _wrong_dimension(passage: UUID, found: float, dimension: int) -> IndexMismatch:
    return IndexMismatch(
        f"the vector of passage {passage} has dimension {found:g}, the index holds {dimension}",
        remedy="Two sentence encoders share one name: give the other one another name, "
        "or index the documents again.",
    )


@contextmanager
def _explained() -> Iterator[None]:
    """The database's errors in our words; a mistake in a statement stays what it is."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise IndexUnavailable(
            f"the dense index cannot reach the database: {error.args[0]}",
            remedy="Check that Postgres runs and that CLARA_DATABASE_URL is right.",
        ) from error
