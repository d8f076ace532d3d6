"""What both dense indexes promise, on real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from clara.errors import IndexMismatch
from clara.retrieval.ports import DenseIndex
from tests.clara.retrieval.conftest import MakeDense

DIMENSION = 8


def units(count: int, *, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def axis(number: int) -> NDArray[np.float32]:
    return np.eye(DIMENSION, dtype=np.float32)[number]


def found(index: DenseIndex, collection: UUID, vector: NDArray[np.float32]) -> list[UUID]:
    return [hit.passage_id for hit in index.search(collection, vector, limit=50)]


@pytest.fixture
def other(make_dense: MakeDense, dense_index: DenseIndex) -> DenseIndex:
    """The same store, as another process sees it."""
    return make_dense(encoder="tiny", dimension=DIMENSION)


@pytest.fixture
def wide(make_dense: MakeDense, dense_index: DenseIndex) -> DenseIndex:
    """Another encoder's vectors on the same store."""
    return make_dense(encoder="wide", dimension=3)


@pytest.fixture
def elsewhere(dense_index: DenseIndex) -> Iterator[UUID]:
    """A second collection."""
    id_ = uuid4()
    yield id_
    dense_index.drop(id_)


def test_the_nearest_vector_comes_first_with_its_cosine(
    dense_index: DenseIndex, collection: UUID
) -> None:
    near, far, opposite = uuid4(), uuid4(), uuid4()
    between = (axis(0) + axis(1)) / np.sqrt(2)
    dense_index.put(collection, {far: axis(1), opposite: -axis(0), near: between})
    hits = dense_index.search(collection, axis(0), limit=5)
    assert [hit.passage_id for hit in hits] == [near, far, opposite]
    assert [hit.score for hit in hits] == pytest.approx([np.sqrt(0.5), 0, -1], abs=1e-3)


def test_a_ranking_is_that_of_the_exact_cosines(dense_index: DenseIndex, collection: UUID) -> None:
    vectors = units(200, seed=3)
    ids = [uuid4() for _ in vectors]
    dense_index.put(collection, dict(zip(ids, vectors, strict=True)))
    for question in units(5, seed=4):
        cosines = vectors @ question
        hits = dense_index.search(collection, question, limit=12)
        assert [hit.passage_id for hit in hits] == [ids[i] for i in np.argsort(-cosines)[:12]]
        expected = np.sort(cosines)[::-1][:12].tolist()
        assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-3)


def test_no_more_than_the_limit_comes_back(dense_index: DenseIndex, collection: UUID) -> None:
    dense_index.put(collection, {uuid4(): vector for vector in units(9)})
    assert len(dense_index.search(collection, axis(0), limit=3)) == 3
    assert len(dense_index.search(collection, axis(0), limit=20_000)) == 9
    assert dense_index.search(collection, axis(0), limit=0) == []


def test_writes_of_one_process_are_seen_by_the_other(
    dense_index: DenseIndex, other: DenseIndex, collection: UUID
) -> None:
    a, b = uuid4(), uuid4()
    dense_index.put(collection, {a: axis(0)})
    assert found(other, collection, axis(0)) == [a]
    other.put(collection, {b: axis(1)})
    dense_index.delete(collection, [a])
    for each in (dense_index, other):
        assert found(each, collection, axis(0)) == [b]
        assert each.count(collection) == 1


def test_writing_an_id_again_replaces_it(
    dense_index: DenseIndex, other: DenseIndex, collection: UUID
) -> None:
    a = uuid4()
    dense_index.put(collection, {a: axis(0)})
    assert other.scores(collection, axis(0), [a]) == {a: pytest.approx(1, abs=1e-6)}
    for number in (1, 2):
        dense_index.put(collection, {a: axis(number)})
    assert other.scores(collection, axis(2), [a]) == {a: pytest.approx(1, abs=1e-6)}
    assert found(other, collection, axis(0)) == [a]
    assert dense_index.count(collection) == 1


def test_what_was_deleted_can_be_written_again(dense_index: DenseIndex, collection: UUID) -> None:
    a = uuid4()
    dense_index.put(collection, {a: axis(0)})
    dense_index.delete(collection, [a, uuid4()])
    dense_index.delete(collection, [a])
    dense_index.delete(collection, [])
    assert found(dense_index, collection, axis(0)) == []
    assert dense_index.held(collection) == set()
    dense_index.put(collection, {a: axis(1)})
    assert found(dense_index, collection, axis(0)) == [a]
    assert dense_index.held(collection) == {a}


def test_a_drop_reaches_other_processes_and_leaves_room_for_new_vectors(
    dense_index: DenseIndex, other: DenseIndex, collection: UUID
) -> None:
    dense_index.put(collection, {uuid4(): vector for vector in units(20)})
    assert len(found(other, collection, axis(0))) == 20
    for _ in range(2):
        dense_index.drop(collection)
    assert found(other, collection, axis(0)) == []
    assert dense_index.count(collection) == 0
    again = uuid4()
    dense_index.put(collection, {again: axis(0)})
    for each in (dense_index, other):
        assert found(each, collection, axis(0)) == [again]


def test_a_collection_that_was_never_written_is_empty(
    dense_index: DenseIndex, collection: UUID
) -> None:
    dense_index.put(collection, {})
    dense_index.delete(collection, [uuid4()])
    dense_index.drop(collection)
    assert found(dense_index, collection, axis(0)) == []
    assert dense_index.scores(collection, axis(0), [uuid4()]) == {}
    assert dense_index.scores(collection, axis(0), []) == {}
    assert dense_index.count(collection) == 0
    assert dense_index.held(collection) == set()


def test_collections_and_encoders_do_not_see_each_other(
    dense_index: DenseIndex, wide: DenseIndex, collection: UUID, elsewhere: UUID
) -> None:
    a = uuid4()
    dense_index.put(collection, {a: axis(0)})
    dense_index.put(elsewhere, {a: axis(1)})
    wide.put(collection, {a: np.array([1, 0, 0], dtype=np.float32)})
    assert dense_index.scores(collection, axis(0), [a]) == {a: pytest.approx(1, abs=1e-6)}
    assert dense_index.scores(elsewhere, axis(0), [a]) == {a: pytest.approx(0, abs=1e-6)}
    assert wide.count(collection) == 1


def test_deleting_and_dropping_take_the_vectors_of_every_encoder(
    dense_index: DenseIndex, wide: DenseIndex, collection: UUID
) -> None:
    a, b = uuid4(), uuid4()
    short = np.array([1, 0, 0], dtype=np.float32)
    wide.put(collection, dict.fromkeys((a, b), short))
    dense_index.put(collection, {a: axis(0)})
    dense_index.delete(collection, [a])
    assert (dense_index.count(collection), wide.count(collection)) == (0, 1)
    assert dense_index.held(collection) == {b}
    dense_index.drop(collection)
    assert found(wide, collection, short) == []


def test_scores_are_the_cosines_of_the_passages_that_are_there(
    dense_index: DenseIndex, collection: UUID
) -> None:
    vectors = units(60, seed=1)
    ids = [uuid4() for _ in vectors]
    dense_index.put(collection, dict(zip(ids, vectors, strict=True)))
    question = units(1, seed=2)[0]
    asked = [ids[7], uuid4(), *ids[20:50], ids[3]]
    scores = dense_index.scores(collection, question, asked)
    assert list(scores) == [id_ for id_ in asked if id_ in ids]
    expected = [float(vectors[ids.index(id_)] @ question) for id_ in scores]
    assert list(scores.values()) == pytest.approx(expected, abs=1e-3)


def test_a_search_among_some_passages_ranks_exactly_those(
    dense_index: DenseIndex, collection: UUID
) -> None:
    vectors = units(60, seed=5)
    ids = [uuid4() for _ in vectors]
    dense_index.put(collection, dict(zip(ids, vectors, strict=True)))
    only = [*ids[10:30], uuid4()]
    hits = dense_index.search(collection, axis(0), limit=5, only=only)
    best = 10 + np.argsort(-vectors[10:30, 0])[:5]
    assert [hit.passage_id for hit in hits] == [ids[i] for i in best]
    assert dense_index.search(collection, axis(0), limit=5, only=[]) == []


def test_concurrent_writers_lose_nothing(
    make_dense: MakeDense, dense_index: DenseIndex, collection: UUID
) -> None:
    stop = threading.Event()

    def follow() -> None:
        while not stop.is_set():
            dense_index.search(collection, axis(0), limit=1)

    def write(number: int) -> list[UUID]:
        writer = make_dense(encoder="tiny", dimension=DIMENSION)
        mine = [uuid4() for _ in range(6)]
        for start in (0, 3):
            vectors = units(3, seed=number)
            writer.put(collection, dict(zip(mine[start : start + 3], vectors, strict=True)))
        writer.delete(collection, mine[:1])
        return mine[1:]

    reader = threading.Thread(target=follow)
    reader.start()
    with ThreadPoolExecutor(4) as pool:
        kept = {passage for mine in pool.map(write, range(8)) for passage in mine}
    stop.set()
    reader.join()
    assert set(found(dense_index, collection, axis(0))) == kept
    assert dense_index.count(collection) == len(kept) == 40


def test_threads_can_search_at_once(dense_index: DenseIndex, collection: UUID) -> None:
    vectors = units(60, seed=5)
    ids = [uuid4() for _ in vectors]
    dense_index.put(collection, dict(zip(ids, vectors, strict=True)))
    with ThreadPoolExecutor(4) as pool:
        hits = list(pool.map(lambda v: dense_index.search(collection, v, limit=1)[0], vectors))
    assert [hit.passage_id for hit in hits] == ids


def test_a_vector_of_another_dimension_is_refused(
    dense_index: DenseIndex, collection: UUID
) -> None:
    a = uuid4()
    with pytest.raises(IndexMismatch, match=f"{a} has dimension 3, the index holds 8"):
        dense_index.put(collection, {a: np.ones(3, dtype=np.float32)})
    with pytest.raises(IndexMismatch, match=r"shape \(3,\)"):
        dense_index.search(collection, np.ones(3, dtype=np.float32), limit=1)
    with pytest.raises(IndexMismatch, match=r"shape \(3,\)"):
        dense_index.scores(collection, np.ones(3, dtype=np.float32), [a])


def test_one_name_for_two_encoders_is_refused_when_it_comes_to_light(
    make_dense: MakeDense, dense_index: DenseIndex, collection: UUID
) -> None:
    dense_index.put(collection, {uuid4(): axis(0)})
    namesake = make_dense(encoder="tiny", dimension=3)
    short = np.array([1, 0, 0], dtype=np.float32)
    with pytest.raises(IndexMismatch):
        namesake.search(collection, short, limit=1)
