from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import pytest

from clara.errors import IndexMismatch, IndexUnavailable
from clara.retrieval.resting import RestingIndex
from clara.types import Hit

COLLECTION = uuid4()
AWAY = IndexUnavailable("gone", remedy="Start it.")


class Cluster:
    """Answers, or does not; counts how often it is asked."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = 0
        self.now = 0.0

    def search(self, *_: object, **__: object) -> list[Hit]:
        self.asked += 1
        if self.error:
            raise self.error
        return [Hit(UUID(int=1), 1.0)]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def index(cluster: Cluster) -> RestingIndex:
    inner: Any = cluster
    return RestingIndex(inner, rest_s=5.0, clock=lambda: cluster.now)


def search(index: RestingIndex) -> int:
    return len(index.search(COLLECTION, "bees", limit=1))


def test_one_that_answers_is_asked_each_time(index: RestingIndex, cluster: Cluster) -> None:
    assert [search(index) for _ in range(3)] == [1, 1, 1]
    assert cluster.asked == 3


def test_one_that_is_away_is_not_asked_for_a_while(index: RestingIndex, cluster: Cluster) -> None:
    cluster.error = AWAY
    for cluster.now in (0.0, 1.0, 4.9):
        with pytest.raises(IndexUnavailable, match=r"gone\. Start it"):
            search(index)
    assert cluster.asked == 1
    cluster.now = 5.0
    with pytest.raises(IndexUnavailable):
        search(index)
    assert cluster.asked == 2


def test_one_that_is_back_is_asked_again_each_time(index: RestingIndex, cluster: Cluster) -> None:
    cluster.error = AWAY
    with pytest.raises(IndexUnavailable):
        search(index)
    cluster.error, cluster.now = None, 5.0
    assert [search(index), search(index)] == [1, 1]


def test_while_one_search_finds_out_the_others_do_not_wait(cluster: Cluster) -> None:
    asked, answer = Event(), Event()

    def slow(*_: object, **__: object) -> list[Hit]:
        asked.set()
        assert answer.wait(10)
        return []

    cluster.error = AWAY
    inner: Any = cluster
    index = RestingIndex(inner, rest_s=5.0, clock=lambda: cluster.now)
    with pytest.raises(IndexUnavailable):
        search(index)
    cluster.now, cluster.search = 5.0, slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        finding_out = pool.submit(search, index)
        assert asked.wait(10)
        with pytest.raises(IndexUnavailable):
            search(index)
        answer.set()
        assert finding_out.result() == 0


def test_another_error_is_no_reason_to_rest(index: RestingIndex, cluster: Cluster) -> None:
    cluster.error = IndexMismatch("changed by hand")
    for _ in range(2):
        with pytest.raises(IndexMismatch):
            search(index)
    assert cluster.asked == 2
