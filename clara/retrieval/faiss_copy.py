"""One collection's vectors in this process's memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from clara.retrieval import faiss_kinds
from clara.retrieval.dense_log import (
    EVERYTHING,
    PAGE,
    PRIME,
    STORED,
    Digest,
    unit,
    wrong_dimension,
)
from clara.retrieval.faiss_kinds import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

AHEAD = 2
"""Of `limit`, that are looked at: float16 may swap two whose cosines differ in the fourth digit."""

AHEAD_BY_CODES = 8
LEAST_BY_CODES = 100
MOST_MORE_BY_CODES = 1_000
"""The same where the first look is by codes: the true nearest 12 were among the first 100. Each one
more is a vector to be read from the log."""


@dataclass(frozen=True)
class State:
    """All of a copy, as it was at one watermark. The arrays are the copy's own no more."""

    watermark: int
    kind: Kind
    ids: NDArray[np.uint8]
    """(positions, 16): passage ids."""
    seqs: NDArray[np.int64]
    """(positions,)."""
    alive: NDArray[np.bool_]
    """(positions,): false where a vector was replaced or removed since."""
    built: Any
    """FAISS index over the first positions; None where there is none."""
    tail: NDArray[np.float16]
    """(positions after those, dimension)."""


class Copy:
    """Vectors by position: first those of a built index, then the ones that came since.

    A built index takes no vector back and, once it serves, none in: later ones stand in a flat
    tail, and what is removed is only passed over. A copy where either has grown large is replaced
    by one built anew. Hold `lock` around every method.
    """

    kind: Kind
    """Of the built index; flat where there is none."""
    _built: Any
    _gpu: Any
    _at: dict[bytes, int]
    """Position of each passage that counts, by the bytes of its id."""

    def __init__(self, dimension: int) -> None:
        self.lock = Lock()
        self.started = False
        """Whether it follows the log yet."""
        self.watermark = 0
        self.since_snapshot = 0
        """Rows applied since the last one was read or written."""
        self._dimension = dimension
        self._clear()

    def build(self, kind: Kind, index: Any) -> None:
        """Take what is applied until `finish` into `index`, an empty one of `kind`."""
        self.kind, self._built, self._building = kind, index, True

    def finish(self) -> None:
        """The built index is complete; it does not change any more."""
        self._building = False
        self._gpu = faiss_kinds.gpu_copy(self.kind, self._built)

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
                    raise wrong_dimension(passage, len(block) / STORED.itemsize, self._dimension)
                added[passage] = (seq, block)
        if emptied:
            self._clear()
        self._remove(removed)
        self._add(added)
        self.watermark = rows[-1][0]
        self.since_snapshot += len(rows)

    @property
    def count(self) -> int:
        """Vectors that are searched."""
        return len(self._at)

    @property
    def dead(self) -> int:
        """Positions that are passed over."""
        return self._size - len(self._at)

    @property
    def tail(self) -> int:
        """Positions that no built index covers."""
        return int(self._tail.ntotal)

    def near(self, vector: Vectors, limit: int) -> list[UUID]:
        """Passages among which the best `limit` are, in no order that counts."""
        found: list[tuple[float, int]] = []
        covered = self._size - self.tail
        for start, kind, index, ahead in (
            (0, self.kind, self._built, self._ahead(limit)),
            (covered, Kind.FLAT, self._tail, AHEAD * limit),
        ):
            wanted = min(ahead, len(self._at))
            if index is not None and wanted and index.ntotal:
                cosines, positions = self._look(kind, index, start, vector, wanted)
                found += zip(cosines.tolist(), (positions + start).tolist(), strict=True)
        best = sorted(found, reverse=True)[: self._ahead(limit)]
        return [UUID(bytes=self._ids[at].tobytes()) for _, at in best]

    def scores(
        self, vector: Vectors, passages: Iterable[UUID]
    ) -> tuple[dict[UUID, float], list[UUID]]:
        """Exact cosines, and the passages that are there, but only as codes."""
        covered = self._size - self.tail
        known = {p: at for p in passages if (at := self._at.get(p.bytes)) is not None}
        coded = {p for p, at in known.items() if at < covered and not self.kind.whole}
        found: dict[UUID, float] = {}
        for index, start, of_it in (
            (self._built, 0, [p for p, at in known.items() if at < covered and p not in coded]),
            (self._tail, covered, [p for p, at in known.items() if at >= covered]),
        ):
            for first in range(0, len(of_it), PAGE):
                some = of_it[first : first + PAGE]
                places = np.array([known[p] - start for p in some], dtype=np.int64)
                cosines = unit(index.reconstruct_batch(places)) @ vector
                found |= {p: clip(c) for p, c in zip(some, cosines.tolist(), strict=True)}
        return {p: found[p] for p in known if p in found}, list(coded)

    def digest(self) -> Digest:
        """Comparable with the log's."""
        alive = self._alive[: self._size]
        first = self._ids[: self._size, :4][alive].copy().view(">u4").ravel().astype(np.uint64)
        seqs = (self._seqs[: self._size][alive] % PRIME).astype(np.uint64)
        return Digest(len(self._at), int((first * seqs).sum(dtype=np.uint64)))

    def state(self) -> State:
        """For a snapshot. The built index is handed over as it is, since it never changes."""
        codes = faiss_kinds.library().vector_to_array(self._tail.codes)
        return State(
            watermark=self.watermark,
            kind=self.kind,
            ids=self._ids[: self._size].copy(),
            seqs=self._seqs[: self._size].copy(),
            alive=self._alive[: self._size].copy(),
            built=self._built,
            tail=codes.view(np.float16).reshape(-1, self._dimension),
        )

    def restore(self, state: State) -> None:
        """Become what `state` says, whatever it was."""
        self._clear()
        self.kind, self._built = state.kind, state.built
        self._ids, self._seqs = state.ids.copy(), state.seqs.copy()
        self._alive, self._size = state.alive.copy(), len(state.ids)
        if len(state.tail):
            self._tail.add(state.tail.astype(np.float32))
        there = np.flatnonzero(state.alive).tolist()
        self._at = {state.ids[at].tobytes(): at for at in there}
        self.watermark = state.watermark
        self._gpu = faiss_kinds.gpu_copy(self.kind, self._built)

    def clear(self) -> None:
        """Empty, and before the log's first row."""
        self._clear()
        self.watermark = 0

    def _clear(self) -> None:
        self.kind = Kind.FLAT
        self._built = None
        self._building = False
        self._gpu = None
        self._tail = faiss_kinds.empty(Kind.FLAT, self._dimension)
        self._size = 0
        self._ids = np.zeros((0, 16), dtype=np.uint8)
        self._seqs = np.zeros(0, dtype=np.int64)
        self._alive = np.zeros(0, dtype=np.bool_)
        self._at = {}

    def _ahead(self, limit: int) -> int:
        if self.kind.whole:
            return AHEAD * limit
        return max(LEAST_BY_CODES, min(AHEAD_BY_CODES * limit, limit + MOST_MORE_BY_CODES))

    def _look(
        self, kind: Kind, index: Any, start: int, vector: Vectors, wanted: int
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """On the GPU where there is one; it cannot pass over the dead, so it is asked for more."""
        alive = self._alive[start : start + index.ntotal]
        dead = len(alive) - int(alive.sum())
        more = wanted + dead
        if self._gpu is not None and index is self._built and more <= faiss_kinds.GPU_MOST:
            cosines, positions = faiss_kinds.nearest(Kind.FLAT, self._gpu, vector, more, None)
            kept = alive[positions]
            return cosines[kept][:wanted], positions[kept][:wanted]
        return faiss_kinds.nearest(kind, index, vector, wanted, alive if dead else None)

    def _remove(self, passages: Iterable[UUID]) -> None:
        gone = [at for p in passages if (at := self._at.pop(p.bytes, None)) is not None]
        self._alive[gone] = False

    def _add(self, entries: Mapping[UUID, tuple[int, bytes]]) -> None:
        if not entries:
            return
        blocks = b"".join(block for _, block in entries.values())
        vectors = np.frombuffer(blocks, STORED).reshape(-1, self._dimension).astype(np.float32)
        (self._built if self._building else self._tail).add(vectors)
        first, last = self._size, self._size + len(entries)
        self._reserve(last)
        names = [passage.bytes for passage in entries]
        self._ids[first:last] = np.frombuffer(b"".join(names), np.uint8).reshape(-1, 16)
        self._seqs[first:last] = [seq for seq, _ in entries.values()]
        self._alive[first:last] = True
        self._at.update(zip(names, range(first, last), strict=True))
        self._size = last

    def _reserve(self, size: int) -> None:
        """Room for `size` positions; twice as much as needed, so that it is seldom asked for."""
        if size <= len(self._seqs):
            return
        more = 2 * size - self._size
        self._ids = np.concatenate([self._ids[: self._size], np.zeros((more, 16), np.uint8)])
        self._seqs = np.concatenate([self._seqs[: self._size], np.zeros(more, np.int64)])
        self._alive = np.concatenate([self._alive[: self._size], np.zeros(more, np.bool_)])


def clip(cosine: float) -> float:
    """What rounding put beyond [-1, 1] is put back."""
    return min(1.0, max(-1.0, cosine))
