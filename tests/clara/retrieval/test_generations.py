from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from clara.errors import IndexMismatch
from clara.retrieval.cluster import Cluster
from clara.retrieval.elasticsearch import ElasticsearchIndex
from clara.retrieval.elasticsearch_dense import ElasticsearchDense
from clara.retrieval.tantivy import TantivyIndex
from clara.types import PassageText

NORTH = np.array([1, 0, 0, 0], dtype=np.float32)


class Lexical:
    """Writes and finds a passage on a lexical index."""

    def __init__(self, index: ElasticsearchIndex | TantivyIndex) -> None:
        self.index: Any = index

    def put(self, collection: UUID, id_: UUID, **options: Any) -> None:
        self.index.put(collection, [PassageText(id_, uuid4(), "", "bees dance")], **options)

    def find(self, collection: UUID, **options: Any) -> list[UUID]:
        hits = self.index.search(collection, "bees", limit=9, **options)
        return sorted(hit.passage_id for hit in hits)


class Dense:
    """The same on the dense index."""

    def __init__(self, cluster: Cluster) -> None:
        self.index: Any = ElasticsearchDense(cluster, encoder="tiny", dimension=4)

    def put(self, collection: UUID, id_: UUID, **options: Any) -> None:
        self.index.put(collection, {id_: NORTH}, **options)

    def find(self, collection: UUID, **options: Any) -> list[UUID]:
        hits = self.index.search(collection, NORTH, limit=9, **options)
        return sorted(hit.passage_id for hit in hits)


Kind = Lexical | Dense


@pytest.fixture(params=["tantivy", "elasticsearch", "dense"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "dense":
        return Dense(request.getfixturevalue("cluster"))
    return Lexical(request.getfixturevalue(f"{request.param}_index"))


@pytest.fixture(params=["tantivy", "elasticsearch"])
def lexical(request: pytest.FixtureRequest) -> Lexical:
    return Lexical(request.getfixturevalue(f"{request.param}_index"))


@pytest.fixture
def dropped(kind: Kind, collection: UUID) -> Any:
    yield collection
    kind.index.drop(collection)


def test_a_generation_is_filled_beside_the_one_that_is_searched(kind: Kind, dropped: UUID) -> None:
    old, new = uuid4(), uuid4()
    kind.put(dropped, old)
    kind.put(dropped, new, generation=2)
    assert kind.index.generations(dropped) == {1: True, 2: False}
    assert kind.find(dropped) == [old]
    assert kind.find(dropped, generation=2) == [new]
    assert (kind.index.count(dropped), kind.index.count(dropped, generation=2)) == (1, 1)


def test_a_switch_changes_what_is_searched_and_written_and_can_be_taken_back(
    kind: Kind, dropped: UUID
) -> None:
    old, new, later = uuid4(), uuid4(), uuid4()
    kind.put(dropped, old)
    kind.put(dropped, new, generation=2)
    kind.index.switch(dropped, 2)
    kind.index.switch(dropped, 2)
    kind.put(dropped, later)
    assert kind.index.generations(dropped) == {1: False, 2: True}
    assert kind.find(dropped) == sorted([new, later])
    kind.index.switch(dropped, 1)
    assert kind.find(dropped) == [old]


def test_a_search_during_switches_always_sees_one_whole_generation(
    kind: Kind, dropped: UUID
) -> None:
    kind.put(dropped, old := uuid4())
    kind.put(dropped, new := uuid4(), generation=2)
    stop = threading.Event()

    def search(_: int) -> list[list[UUID]]:
        seen = []
        while not stop.is_set():
            seen.append(kind.find(dropped))
        return seen

    with ThreadPoolExecutor(2) as pool:
        searching = pool.map(search, range(2))
        for number in (2, 1, 2):
            kind.index.switch(dropped, number)
        stop.set()
        seen = [found for each in searching for found in each]
    assert seen
    assert all(found in ([old], [new]) for found in seen)


def test_two_switches_at_once_leave_one_generation_active(kind: Kind, dropped: UUID) -> None:
    kind.put(dropped, uuid4())
    for number in (2, 3):
        kind.put(dropped, uuid4(), generation=number)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: kind.index.switch(dropped, number), [2, 3] * 2))
    assert sorted(kind.index.generations(dropped).values()) == [False, False, True]
    assert len(kind.find(dropped)) == 1


def test_an_old_generation_can_be_dropped_and_the_active_one_cannot(
    kind: Kind, dropped: UUID
) -> None:
    kind.put(dropped, uuid4())
    kind.put(dropped, new := uuid4(), generation=2)
    kind.index.switch(dropped, 2)
    with pytest.raises(IndexMismatch, match=r"generation 2 .* is the one that is searched"):
        kind.index.drop_generation(dropped, 2)
    kind.index.drop_generation(dropped, 1)
    kind.index.drop_generation(dropped, 1)
    assert kind.index.generations(dropped) == {2: True}
    assert kind.find(dropped) == [new]


def test_a_switch_to_what_is_not_there_is_refused(kind: Kind, dropped: UUID) -> None:
    kind.put(dropped, old := uuid4())
    with pytest.raises(IndexMismatch, match="has no generation 7; there are 1"):
        kind.index.switch(dropped, 7)
    assert kind.find(dropped) == [old]


def test_what_is_deleted_is_gone_from_every_generation(kind: Kind, dropped: UUID) -> None:
    both, kept = uuid4(), uuid4()
    kind.put(dropped, both)
    kind.put(dropped, both, generation=2)
    kind.put(dropped, kept, generation=2)
    kind.index.delete(dropped, [both])
    assert kind.find(dropped) == []
    assert kind.find(dropped, generation=2) == [kept]
    assert kind.index.held(dropped) == {kept}


def test_dropping_a_collection_drops_every_generation(kind: Kind, dropped: UUID) -> None:
    kind.put(dropped, uuid4())
    kind.put(dropped, uuid4(), generation=5)
    kind.index.drop(dropped)
    assert kind.index.generations(dropped) == {}


def test_what_is_deleted_of_one_generation_stays_in_the_others(
    lexical: Lexical, collection: UUID
) -> None:
    both = uuid4()
    lexical.put(collection, both)
    lexical.put(collection, both, generation=2)
    lexical.index.delete(collection, [both], generation=2)
    lexical.index.delete(collection, [both], generation=7)
    assert lexical.find(collection) == [both]
    assert lexical.find(collection, generation=2) == []
    lexical.index.drop(collection)


def test_an_empty_generation_can_take_over(lexical: Lexical, collection: UUID) -> None:
    lexical.index.make(collection, 2)
    lexical.index.make(collection, 2)
    assert lexical.index.generations(collection) == {2: False}
    lexical.index.switch(collection, 2)
    assert lexical.index.generations(collection) == {2: True}
    assert lexical.find(collection) == []
    lexical.put(collection, new := uuid4())
    assert lexical.find(collection) == lexical.find(collection, generation=2) == [new]
    lexical.index.drop(collection)
    assert lexical.find(collection) == []
    assert lexical.index.generations(collection) == {}


def test_making_one_that_is_there_keeps_what_it_holds(lexical: Lexical, collection: UUID) -> None:
    lexical.put(collection, kept := uuid4(), generation=3)
    lexical.index.make(collection, 3)
    assert lexical.find(collection, generation=3) == [kept]
    lexical.index.drop(collection)
