"""An index that did not answer is left alone for a moment, so that questions need not wait for it.

A search that finds a cluster away tries for `index_timeout_s`; without this, every question would.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from threading import Lock
from time import monotonic
from uuid import UUID

from clara.errors import IndexUnavailable
from clara.retrieval.ports import LexicalIndex
from clara.types import Hit, PassageText

REST_S = 5.0
"""Seconds between two tries; so long at most an index that is back is not asked."""


class RestingIndex:
    """LexicalIndex over another: searches fail at once for a while after one has failed.

    Everything else is passed on: what is written must arrive.

    Args:
        rest_s: seconds.
        clock: seconds from any start.
    """

    def __init__(
        self,
        index: LexicalIndex,
        *,
        rest_s: float = REST_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._index = index
        self._rest_s = rest_s
        self._clock = clock
        self._lock = Lock()
        self._error: IndexUnavailable | None = None
        self._until = 0.0

    def search(
        self, collection: UUID, text: str, *, limit: int, only: Collection[UUID] | None = None
    ) -> list[Hit]:
        """As the index does.

        Raises:
            IndexUnavailable: it does not answer, or did not a moment ago.
        """
        self._check()
        try:
            found = self._index.search(collection, text, limit=limit, only=only)
        except IndexUnavailable as error:
            self._note(error)
            raise
        self._note(None)
        return found

    def put(
        self,
        collection: UUID,
        passages: Sequence[PassageText],
        *,
        generation: int | None = None,
    ) -> None:
        """As the index does."""
        self._index.put(collection, passages, generation=generation)

    def delete(
        self, collection: UUID, passages: Iterable[UUID], *, generation: int | None = None
    ) -> None:
        """As the index does."""
        self._index.delete(collection, passages, generation=generation)

    def drop(self, collection: UUID) -> None:
        """As the index does."""
        self._index.drop(collection)

    def count(self, collection: UUID, *, generation: int | None = None) -> int:
        """As the index does."""
        return self._index.count(collection, generation=generation)

    def held(self, collection: UUID, document: UUID | None = None) -> set[UUID]:
        """As the index does."""
        return self._index.held(collection, document)

    def make(self, collection: UUID, generation: int) -> None:
        """As the index does."""
        self._index.make(collection, generation)

    def generations(self, collection: UUID) -> dict[int, bool]:
        """As the index does."""
        return self._index.generations(collection)

    def switch(self, collection: UUID, generation: int) -> None:
        """As the index does."""
        self._index.switch(collection, generation)

    def drop_generation(self, collection: UUID, generation: int) -> None:
        """As the index does."""
        self._index.drop_generation(collection, generation)

    def _check(self) -> None:
        """One search after each rest finds out; those beside it do not wait for what it finds."""
        with self._lock:
            if self._error is None:
                return
            if self._clock() < self._until:
                raise IndexUnavailable(self._error.message, remedy=self._error.remedy)
            self._until = self._clock() + self._rest_s

    def _note(self, error: IndexUnavailable | None) -> None:
        with self._lock:
            self._error = error
            self._until = self._clock() + self._rest_s
