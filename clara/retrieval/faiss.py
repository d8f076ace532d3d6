"""Dense search: Postgres keeps the vectors as a log, every process follows it into FAISS.

Writers append to the log; before each search a process applies the rows it has not seen. There is
nothing to elect, to hand over, or to repair after a crash. A snapshot is only a faster start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from clara.db.connect import OpenDb
from clara.errors import IndexMismatch
from clara.retrieval import dense_log
from clara.retrieval.dense_log import DenseLog
from clara.retrieval.faiss_copy import Copy, clip
from clara.retrieval.faiss_kinds import Kind, Sizes, compute_alone, empty, training_size
from clara.retrieval.ports import best
from clara.retrieval.snapshots import Snapshots
from clara.types import Hit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

log = logging.getLogger(__name__)

SNAPSHOT_ROWS = 10_000
"""Rows of the log that are worth a snapshot: reading them anew takes a third of a second."""

MOST_DEAD = 0.25
MOST_TAIL = 0.25
"""Of all positions, before a copy is built anew: so much is looked at in vain, or one by one. Over
its life a vector is built into an index about five times."""

LEAST = 1_000
"""Positions below which neither is worth it."""

REST_S = 60.0
"""Seconds before what failed in the background is tried again."""

Task = Callable[[], None]


def in_background(task: Task) -> None:
    """On a thread that a process does not wait for when it ends: all of it can be done again."""
    Thread(target=task, name="dense-upkeep", daemon=True).start()


class FaissIndex:
    """DenseIndex over the log; safe to share between threads.

    Deleting and dropping concern the vectors of every encoder; all else only this one's. A copy of
    a collection starts flat; where another kind of index is better for its size, that is built in
    the background and takes its place.

    Args:
        encoder: name of what made these vectors.
        dimension: numbers per vector.
        snapshots: folder for them; None for none.
        snapshot_rows: rows applied between two.
        sizes: how many vectors each kind of index is for.
        later: runs what can wait, now or on another thread.
    """

    def __init__(
        self,
        open_db: OpenDb,
        *,
        encoder: str,
        dimension: int,
        snapshots: Path | None = None,
        snapshot_rows: int = SNAPSHOT_ROWS,
        sizes: Sizes | None = None,
        later: Callable[[Task], None] = in_background,
    ) -> None:
        self.dimension = dimension
        self._log = DenseLog(open_db, encoder=encoder, dimension=dimension)
        self._folder = snapshots
        self._snapshot_rows = snapshot_rows
        self._sizes = sizes or Sizes()
        self._later = later
        self._lock = Lock()
        self._copies: dict[UUID, Copy] = {}
        self._resting: dict[UUID, float] = {}
        """Collections with upkeep under way or just failed, and until when to leave them alone."""
        self._upkeep = Lock()
        """One at a time: an index is built on one core, and questions need the others."""

    def put(self, collection: UUID, vectors: Mapping[UUID, Vectors]) -> None:
        """Write unit vectors (dimension,) by passage id.

        Raises:
            IndexMismatch: a vector of another dimension.
        """
        self._log.put(collection, vectors)

    def delete(self, collection: UUID, passages: Iterable[UUID]) -> None:
        """Remove by id: a row without a vector stays, for processes that read the one before."""
        self._log.delete(collection, passages)

    def drop(self, collection: UUID) -> None:
        """Forget a collection; one row per encoder stays, for the processes that hold a copy."""
        self._log.drop(collection)
        if kept := self._snapshots(collection):
            kept.drop()

    def search(
        self,
        collection: UUID,
        vector: Vectors,
        *,
        limit: int,
        only: Collection[UUID] | None = None,
    ) -> list[Hit]:
        """Best first by cosine, over every write committed before."""
        self._check(vector)
        if limit < 1:
            return []
        with self._current(collection) as copy:
            near = copy.near(vector, limit) if only is None else list(only)
            scores, coded = copy.scores(vector, near)
        return best(scores | self._exact(collection, vector, coded), limit)

    def scores(
        self, collection: UUID, vector: Vectors, passages: Sequence[UUID]
    ) -> dict[UUID, float]:
        """Exact cosine of given passages; those not in the index are left out."""
        self._check(vector)
        with self._current(collection) as copy:
            scores, coded = copy.scores(vector, passages)
        found = scores | self._exact(collection, vector, coded)
        return {passage: found[passage] for passage in passages if passage in found}

    def count(self, collection: UUID) -> int:
        """Vectors held; asks the log, so that it costs no copy of the vectors."""
        return self._log.count(collection)

    def held(self, collection: UUID) -> set[UUID]:
        """Ids of the passages that have a vector of any encoder; asks the log."""
        return self._log.held(collection)

    def kind(self, collection: UUID) -> Kind:
        """How this process searches a collection now."""
        with self._current(collection) as copy:
            return copy.kind

    def _exact(self, collection: UUID, vector: Vectors, coded: Sequence[UUID]) -> dict[UUID, float]:
        """Cosines of passages whose vectors are not in memory, by those of the log."""
        found = self._log.scores(collection, vector, coded)
        return {passage: clip(cosine) for passage, cosine in found.items()}

    def _check(self, vector: Vectors) -> None:
        if vector.shape != (self.dimension,):
            raise IndexMismatch(
                f"the question's vector has shape {vector.shape}, the index holds "
                f"({self.dimension},)",
                remedy="Ask with the encoder the collection was indexed with.",
            )

    def _snapshots(self, collection: UUID) -> Snapshots | None:
        if self._folder is None:
            return None
        return Snapshots(
            self._folder, collection, encoder=self._log.encoder, dimension=self.dimension
        )

    @contextmanager
    def _current(self, collection: UUID) -> Iterator[Copy]:
        """This process's copy, brought up to date and held while it is used."""
        with self._lock:
            copy = self._copies.get(collection) or Copy(self.dimension)
            self._copies[collection] = copy
        with copy.lock:
            compute_alone()
            if not copy.started:
                self._start(collection, copy)
            self._follow(collection, copy)
            yield copy
            due = self._due(copy)
        if due:
            self._schedule(collection, due)

    def _start(self, collection: UUID, copy: Copy) -> None:
        """From the newest snapshot that the log bears out, or else from the log's first row."""
        kept = self._snapshots(collection)
        for path, state in kept.read() if kept else ():
            copy.restore(state)
            if self._agrees(collection, copy):
                break
            log.warning("the snapshot %s is not used: the database holds something else", path)
            path.unlink(missing_ok=True)
            copy.clear()
        copy.since_snapshot = 0
        copy.started = True

    def _agrees(self, collection: UUID, copy: Copy) -> bool:
        """Whether a copy, brought up to date, holds what the log does: all seen at one moment."""
        with self._log.reading(frozen=True) as db:
            while rows := self._log.news(db, collection, copy.watermark):
                copy.apply(rows)
            return copy.digest() == self._log.digest(db, collection)

    def _follow(self, collection: UUID, copy: Copy) -> None:
        """Apply the rows that are new."""
        with self._log.reading() as db:
            while rows := self._log.news(db, collection, copy.watermark):
                copy.apply(rows)
                if len(rows) < dense_log.PAGE:
                    break

    def _due(self, copy: Copy) -> Callable[[UUID], None] | None:
        """What upkeep a copy needs: to be built anew, or to be written down."""
        size = copy.count + copy.dead
        if not self._sizes.fit(copy.kind, copy.count):
            return self._renew
        wasted = copy.dead > MOST_DEAD * size
        behind = copy.kind is not Kind.FLAT and copy.tail > MOST_TAIL * size
        if size > LEAST and (wasted or behind):
            return self._renew
        written = self._folder is None or copy.since_snapshot < self._snapshot_rows
        return None if written else self._save

    def _schedule(self, collection: UUID, upkeep: Callable[[UUID], None]) -> None:
        """Have it done once, and not again at once if it fails."""
        with self._lock:
            if monotonic() < self._resting.get(collection, 0):
                return
            self._resting[collection] = float("inf")

        def task() -> None:
            rest_s = REST_S
            try:
                with self._upkeep:
                    compute_alone()
                    upkeep(collection)
                rest_s = 0
            except Exception:
                log.exception("upkeep of the dense index of collection %s failed", collection)
            finally:
                with self._lock:
                    self._resting[collection] = monotonic() + rest_s

        self._later(task)

    def _renew(self, collection: UUID) -> None:
        """Build a copy of the kind that is best for the number of vectors there are now."""
        copy = Copy(self.dimension)
        count = self._log.count(collection)
        kind = self._sizes.kind(count)
        if kind is not Kind.FLAT:
            size = training_size(kind, count)
            sample = self._log.sample(collection, size) if size else None
            copy.build(kind, empty(kind, self.dimension, sample, count=count))
        self._follow(collection, copy)
        copy.finish()
        copy.started = True
        with self._lock:
            self._copies[collection] = copy
        self._save(collection)

    def _save(self, collection: UUID) -> None:
        """Write a snapshot of the copy there is now."""
        kept = self._snapshots(collection)
        if kept is None:
            return
        with self._lock:
            copy = self._copies[collection]
        with copy.lock:
            state = copy.state()
        kept.save(state)
        copy.since_snapshot = 0
