"""The log of vectors in Postgres: every process follows it into an index of its own.

One row per passage and encoder, in the order of `seq`. Writing a vector again, or removing it,
gives its row a new `seq`, so that whoever follows comes by it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import numpy as np
from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import DenseEntry
from clara.errors import IndexMismatch, IndexUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

STORED = np.dtype("<f2")
"""Numbers of a stored vector."""

PAGE = 5_000
"""Rows read at a time: 4 MB at dimension 384."""

EVERYTHING = UUID(int=0)
"""Stands for the whole collection in a removal."""

PRIME = 1_000_003
"""Of the digest: a `seq` below it counts as it is."""

_PUT = text(
    """
    INSERT INTO dense_entry (collection_id, encoder, passage_id, vector)
    SELECT :collection, :encoder, given.passage, given.vector
    FROM unnest(CAST(:passages AS uuid[]), CAST(:vectors AS bytea[])) AS given (passage, vector)
    ON CONFLICT (collection_id, passage_id, encoder)
    DO UPDATE SET seq = DEFAULT, vector = excluded.vector
    """
)

_VECTORS = text(
    """
    SELECT passage_id, vector FROM dense_entry
    WHERE collection_id = :collection AND encoder = :encoder
    AND passage_id = ANY(CAST(:passages AS uuid[])) AND vector IS NOT NULL
    """
)

_REMOVE = text(
    """
    UPDATE dense_entry SET seq = DEFAULT, vector = NULL
    WHERE collection_id = :collection AND passage_id = ANY(CAST(:passages AS uuid[]))
    AND vector IS NOT NULL
    """
)

_DIGEST = text(
    f"""
    SELECT count(*), coalesce(
        sum((seq % {PRIME}) * ('x' || left(CAST(passage_id AS text), 8))::bit(32)::bigint), 0
    ) % {2**64}
    FROM dense_entry
    WHERE collection_id = :collection AND encoder = :encoder AND vector IS NOT NULL
    """  # noqa: S608 - two numbers of this file
)


class Digest(NamedTuple):
    """What two equal states of a collection have in common, and hardly any others."""

    vectors: int
    total: int
    """Over all vectors: `seq` modulo PRIME times the passage's first 32 bits, modulo 2^64."""


class DenseLog:
    """The rows of one encoder; deleting and dropping concern those of every encoder.

    Raises IndexUnavailable where Postgres does not answer.

    Args:
        encoder: name of what made the vectors.
        dimension: numbers per vector.
    """

    def __init__(self, open_db: OpenDb, *, encoder: str, dimension: int) -> None:
        self.encoder = encoder
        self.dimension = dimension
        self._open_db = open_db

    def put(self, collection: UUID, vectors: Mapping[UUID, Vectors]) -> None:
        """Write vectors (dimension,) by passage id.

        Raises:
            IndexMismatch: a vector of another dimension.
        """
        for passage, vector in vectors.items():
            if vector.shape != (self.dimension,):
                raise wrong_dimension(passage, vector.size, self.dimension)
        if not vectors:
            return
        with self.writing(collection) as db:
            db.execute(
                _PUT,
                {
                    "collection": collection,
                    "encoder": self.encoder,
                    "passages": list(vectors),
                    "vectors": [vector.astype(STORED).tobytes() for vector in vectors.values()],
                },
            )

    def delete(self, collection: UUID, passages: Iterable[UUID]) -> None:
        """Remove by id; what was never there leaves no row."""
        ids = list(passages)
        if not ids:
            return
        with self.writing(collection) as db:
            db.execute(_REMOVE, {"collection": collection, "passages": ids})

    def drop(self, collection: UUID) -> None:
        """Forget a collection; one row per encoder stays, for the processes that hold a copy."""
        with self.writing(collection) as db:
            of_collection = DenseEntry.collection_id == collection
            encoders = db.scalars(select(DenseEntry.encoder).where(of_collection).distinct()).all()
            db.execute(delete(DenseEntry).where(of_collection))
            if encoders:
                rows = [
                    {"collection_id": collection, "passage_id": EVERYTHING, "encoder": encoder}
                    for encoder in encoders
                ]
                db.execute(insert(DenseEntry).values(rows))

    def count(self, collection: UUID) -> int:
        """Vectors held."""
        with self.reading() as db:
            found = db.scalar(select(func.count()).where(*self._vectors_of(collection)))
        return found or 0

    def held(self, collection: UUID) -> set[UUID]:
        """Ids of the passages that have a vector of any encoder."""
        with self.reading() as db:
            return set(
                db.scalars(
                    select(DenseEntry.passage_id).where(
                        DenseEntry.collection_id == collection, DenseEntry.vector.is_not(None)
                    )
                )
            )

    def news(self, db: Session, collection: UUID, watermark: int) -> Sequence[Any]:
        """At most PAGE rows after `watermark`, in order: seq, passage_id, vector."""
        return db.execute(
            select(DenseEntry.seq, DenseEntry.passage_id, DenseEntry.vector)
            .where(
                DenseEntry.collection_id == collection,
                DenseEntry.encoder == self.encoder,
                DenseEntry.seq > watermark,
            )
            .order_by(DenseEntry.seq)
            .limit(PAGE)
        ).all()

    def digest(self, db: Session, collection: UUID) -> Digest:
        """Of what the log holds now."""
        values = {"collection": collection, "encoder": self.encoder}
        count, total = db.execute(_DIGEST, values).one()
        return Digest(int(count), int(total))

    def scores(
        self, collection: UUID, vector: Vectors, passages: Sequence[UUID]
    ) -> dict[UUID, float]:
        """Cosines of given passages with a unit vector; those without one are left out."""
        found: dict[UUID, float] = {}
        for start in range(0, len(passages), PAGE):
            values = {"collection": collection, "encoder": self.encoder}
            values["passages"] = list(passages[start : start + PAGE])
            with self.reading() as db:
                rows = db.execute(_VECTORS, values).all()
            cosines = (self.unpack([row.vector for row in rows]) @ vector).tolist()
            found |= {row.passage_id: c for row, c in zip(rows, cosines, strict=True)}
        return found

    def sample(self, collection: UUID, size: int) -> Vectors:
        """Vectors (at most size, dimension) of passages drawn evenly: their ids are hashes."""
        with self.reading() as db:
            rows = db.scalars(
                select(DenseEntry.vector)
                .where(*self._vectors_of(collection))
                .order_by(DenseEntry.passage_id)
                .limit(size)
            ).all()
        return self.unpack([row for row in rows if row is not None])

    def unpack(self, blocks: Sequence[bytes]) -> Vectors:
        """Unit vectors (blocks, dimension); float16 changed the lengths in the fourth digit."""
        vectors = np.frombuffer(b"".join(blocks), STORED).reshape(-1, self.dimension)
        return unit(vectors.astype(np.float32))

    @contextmanager
    def reading(self, *, frozen: bool = False) -> Iterator[Session]:
        """A transaction; with `frozen` all its statements see one and the same moment."""
        with explained(), self._open_db() as db:
            if frozen:
                db.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield db

    @contextmanager
    def writing(self, collection: UUID) -> Iterator[Session]:
        """A transaction alone with this collection until it is committed.

        The lock comes before any `seq` is drawn: whoever draws the smaller one is visible first.
        Plans are made for the values at hand: a prepared one compares every row of the collection
        with every id of a long list (50 ms for 300 ids and 9,000 rows, instead of 3).
        """
        digest = hashlib.sha256(b"dense_entry" + collection.bytes).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        with explained(), self._open_db.begin() as db:
            planned = func.set_config("plan_cache_mode", "force_custom_plan", True)
            db.execute(select(func.pg_advisory_xact_lock(key), planned))
            yield db

    def _vectors_of(self, collection: UUID) -> tuple[Any, ...]:
        return (
            DenseEntry.collection_id == collection,
            DenseEntry.encoder == self.encoder,
            DenseEntry.vector.is_not(None),
        )


def unit(vectors: Vectors) -> Vectors:
    """The same directions (n, dimension) at length one."""
    scaled: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return scaled


def wrong_dimension(passage: UUID, found: float, dimension: int) -> IndexMismatch:
    """Of a vector that is not this encoder's."""
    return IndexMismatch(
        f"the vector of passage {passage} has dimension {found:g}, the index holds {dimension}",
        remedy="Two encoders share one name: give the other one another name, "
        "or index the documents again.",
    )


@contextmanager
def explained() -> Iterator[None]:
    """The database's errors in our words; a mistake in a statement stays what it is."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise IndexUnavailable(
            f"the dense index cannot reach the database: {error.args[0]}",
            remedy="Check that Postgres runs and that CLARA_DATABASE_URL is right.",
        ) from error
