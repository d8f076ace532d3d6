from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clara.library.cache import TextCache

ROW = 8
"""Bytes of a value."""

Value = NDArray[np.int64]


def lengths(texts: list[str]) -> list[Value]:
    return [np.array([len(text)]) for text in texts]


def test_what_was_seen_lately_is_made_once() -> None:
    cache: TextCache[Value] = TextCache(2 * ROW)
    made: list[str] = []

    def make(texts: list[str]) -> list[Value]:
        made.extend(texts)
        return lengths(texts)

    assert [one.item() for one in cache.of(["a", "bb", "a"], make)] == [1, 2, 1]
    cache.of(["a"], make)
    cache.of(["ccc"], make)  # "bb" was not asked for the longest
    cache.of(["a"], make)
    assert made == ["a", "bb", "ccc"]
    cache.of(["bb"], make)
    assert made == ["a", "bb", "ccc", "bb"]


def test_what_was_dropped_is_no_longer_counted() -> None:
    cache: TextCache[Value] = TextCache(ROW)
    cache.of(["a", "bb"], lengths)
    assert cache.bytes == ROW
    cache.clear()
    assert cache.bytes == 0
    assert cache.of([], lengths) == []


@given(
    room=st.integers(min_value=0, max_value=5),
    calls=st.lists(st.lists(st.text("ab", min_size=1, max_size=3), max_size=6), max_size=6),
)
def test_values_are_those_of_their_texts_and_never_more_than_there_is_room_for(
    room: int, calls: list[list[str]]
) -> None:
    cache: TextCache[Value] = TextCache(room * ROW)
    for texts in calls:
        found = cache.of(texts, lengths)
        assert [one.item() for one in found] == [len(text) for text in texts]
        assert cache.bytes <= room * ROW
