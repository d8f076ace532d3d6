from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import create_engine, func, select, update
from sqlalchemy.orm import sessionmaker

from clara.db.connect import OpenDb
from clara.db.tables import DenseEntry
from clara.errors import IndexMismatch, IndexUnavailable
from clara.retrieval import faiss as adapter
from clara.retrieval.faiss import FaissIndex

DIMENSION = 8


@pytest.fixture
def index(db: OpenDb) -> FaissIndex:
    return index_on(db)


@pytest.fixture
def other(db: OpenDb) -> FaissIndex:
    """The same database, as another process sees it."""
    return index_on(db)


def index_on(db: OpenDb, *, encoder: str = "tiny", dimension: int = DIMENSION) -> FaissIndex:
    return FaissIndex(db, encoder=encoder, dimension=dimension)


def units(count: int, *, seed: int = 0, dimension: int = DIMENSION) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def axis(number: int) -> NDArray[np.float32]:
    return np.eye(DIMENSION, dtype=np.float32)[number]


def rows(db: OpenDb, collection: UUID) -> int:
    with db() as session:
        query = select(func.count()).where(DenseEntry.collection_id == collection)
        return session.scalar(query) or 0


def test_the_nearest_vector_comes_first(index: FaissIndex, collection: UUID) -> None:
    near, far = uuid4(), uuid4()
    between = (axis(0) + axis(1)) / np.sqrt(2)
    index.put(collection, {far: axis(1), near: between})
    hits = index.search(collection, axis(0), limit=5)
    assert [hit.passage_id for hit in hits] == [near, far]
    assert [hit.score for hit in hits] == pytest.approx([np.sqrt(0.5), 0], abs=1e-6)


def test_writes_of_one_process_are_seen_by_the_other(
    index: FaissIndex, other: FaissIndex, collection: UUID
) -> None:
    a, b = uuid4(), uuid4()
    index.put(collection, {a: axis(0)})
    assert [hit.passage_id for hit in other.search(collection, axis(0), limit=9)] == [a]
    other.put(collection, {b: axis(1)})
    index.delete(collection, [a])
    for each in (index, other):
        assert [hit.passage_id for hit in each.search(collection, axis(0), limit=9)] == [b]
        assert each.count(collection) == 1


def test_writing_an_id_again_replaces_it_and_keeps_one_row(
    index: FaissIndex, other: FaissIndex, collection: UUID, db: OpenDb
) -> None:
    a = uuid4()
    index.put(collection, {a: axis(0)})
    assert other.scores(collection, axis(0), [a]) == {a: pytest.approx(1)}
    for number in (1, 2):
        index.put(collection, {a: axis(number)})
    assert other.scores(collection, axis(2), [a]) == {a: pytest.approx(1)}
    assert len(other.search(collection, axis(2), limit=9)) == 1
    assert rows(db, collection) == 1


def test_deleting_keeps_one_row_however_often_it_is_done(
    index: FaissIndex, collection: UUID, db: OpenDb
) -> None:
    a = uuid4()
    index.put(collection, {a: axis(0)})
    index.delete(collection, [a, uuid4()])
    index.delete(collection, [a])
    index.delete(collection, [])
    assert rows(db, collection) == 1
    index.put(collection, {a: axis(1)})
    assert rows(db, collection) == 1
    assert index.scores(collection, axis(1), [a]) == {a: pytest.approx(1)}


def test_a_drop_reaches_the_copies_of_other_processes(
    index: FaissIndex, other: FaissIndex, collection: UUID, db: OpenDb
) -> None:
    index.put(collection, {uuid4(): vector for vector in units(20)})
    assert len(other.search(collection, axis(0), limit=50)) == 20
    for _ in range(3):
        index.drop(collection)
    assert other.search(collection, axis(0), limit=50) == []
    assert index.count(collection) == 0
    assert rows(db, collection) == 1
    again = uuid4()
    index.put(collection, {again: axis(0)})
    for each in (index, other, index_on(db)):
        assert [hit.passage_id for hit in each.search(collection, axis(0), limit=5)] == [again]


def test_a_drop_and_new_vectors_between_two_searches_leave_only_the_new_ones(
    index: FaissIndex, other: FaissIndex, collection: UUID
) -> None:
    a, b = uuid4(), uuid4()
    index.put(collection, {a: axis(0)})
    assert other.count(collection) == 1
    index.put(collection, {b: axis(0)})
    index.drop(collection)
    index.put(collection, {a: axis(3)})
    assert [h.passage_id for h in other.search(collection, axis(0), limit=5)] == [a]


def test_dropping_what_was_never_written_writes_nothing(
    index: FaissIndex, collection: UUID, db: OpenDb
) -> None:
    index.drop(collection)
    index.put(collection, {})
    assert rows(db, collection) == 0
    assert index.search(collection, axis(0), limit=5) == []
    assert index.scores(collection, axis(0), [uuid4()]) == {}


def test_collections_and_encoders_do_not_see_each_other(
    index: FaissIndex, collection: UUID, db: OpenDb
) -> None:
    a, elsewhere = uuid4(), uuid4()
    wide = index_on(db, encoder="wide", dimension=3)
    index.put(collection, {a: axis(0)})
    index.put(elsewhere, {a: axis(1)})
    wide.put(collection, {a: np.array([1, 0, 0], dtype=np.float32)})
    assert index.scores(collection, axis(0), [a]) == {a: pytest.approx(1)}
    assert index.scores(elsewhere, axis(0), [a]) == {a: pytest.approx(0)}
    assert wide.count(collection) == 1


def test_deleting_takes_the_vectors_of_every_encoder(
    index: FaissIndex, collection: UUID, db: OpenDb
) -> None:
    a, b = uuid4(), uuid4()
    wide = index_on(db, encoder="wide", dimension=3)
    wide.put(collection, {each: np.array([1, 0, 0], dtype=np.float32) for each in (a, b)})
    index.put(collection, {a: axis(0)})
    index.delete(collection, [a])
    assert (index.count(collection), wide.count(collection)) == (0, 1)
    index.drop(collection)
    assert wide.search(collection, np.array([1, 0, 0], dtype=np.float32), limit=5) == []


def test_scores_are_the_cosines_of_the_passages_that_are_there(
    index: FaissIndex, collection: UUID
) -> None:
    vectors = units(30, seed=1)
    ids = [uuid4() for _ in vectors]
    index.put(collection, dict(zip(ids, vectors, strict=True)))
    question = units(1, seed=2)[0]
    scores = index.scores(collection, question, [ids[3], uuid4(), ids[7]])
    assert list(scores) == [ids[3], ids[7]]
    expected = [vectors[3] @ question, vectors[7] @ question]
    assert list(scores.values()) == pytest.approx(expected, abs=1e-3)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "put", "delete", "drop", "look"]), st.integers(0, 99)),
        max_size=25,
    )
)
def test_a_follower_and_a_newcomer_equal_brute_force_after_any_writes(
    db: OpenDb, steps: list[tuple[str, int]]
) -> None:
    collection, passages = uuid4(), [uuid4() for _ in range(5)]
    writer, follower = index_on(db), index_on(db)
    truth: dict[UUID, NDArray[np.float32]] = {}
    for step, seed in steps:
        some = passages[seed % 5 :][: 1 + seed % 3]
        if step == "put":
            new = dict(zip(some, units(len(some), seed=seed), strict=True))
            writer.put(collection, new)
            truth |= new
        elif step == "delete":
            writer.delete(collection, some)
            truth = {p: v for p, v in truth.items() if p not in some}
        elif step == "drop":
            writer.drop(collection)
            truth = {}
        else:
            follower.search(collection, axis(0), limit=1)
    question = units(1, seed=1_000)[0]
    expected = sorted(((float(v @ question), p) for p, v in truth.items()), reverse=True)
    for each in (follower, index_on(db)):
        hits = each.search(collection, question, limit=10)
        assert [h.score for h in hits] == pytest.approx([s for s, _ in expected], abs=2e-3)
        assert {h.passage_id for h in hits} == truth.keys()
        assert each.count(collection) == len(truth)


def test_a_long_log_is_read_in_pages(
    index: FaissIndex, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "PAGE", 7)
    vectors = units(21, seed=3)
    ids = [uuid4() for _ in vectors]
    index.put(collection, dict(zip(ids, vectors, strict=True)))
    question = units(1, seed=4)[0]
    hits = index.search(collection, question, limit=21)
    order = np.argsort(-(vectors @ question))
    assert [hit.passage_id for hit in hits] == [ids[i] for i in order]


def test_concurrent_writers_lose_nothing(db: OpenDb, collection: UUID) -> None:
    follower = index_on(db)
    stop = threading.Event()

    def follow() -> None:
        while not stop.is_set():
            follower.search(collection, axis(0), limit=1)

    def write(number: int) -> list[UUID]:
        writer, mine = index_on(db), [uuid4() for _ in range(6)]
        for start in (0, 3):
            vectors = units(3, seed=number)
            writer.put(collection, dict(zip(mine[start : start + 3], vectors, strict=True)))
        writer.delete(collection, mine[:1])
        return mine[1:]

    reader = threading.Thread(target=follow)
    reader.start()
    with ThreadPoolExecutor(6) as pool:
        kept = {passage for mine in pool.map(write, range(30)) for passage in mine}
    stop.set()
    reader.join()
    hits = follower.search(collection, axis(0), limit=1_000)
    assert {hit.passage_id for hit in hits} == kept
    assert len(hits) == len(kept) == 150


def test_a_writer_that_began_first_but_commits_last_is_not_missed(
    index: FaissIndex, other: FaissIndex, collection: UUID
) -> None:
    slow, fast = uuid4(), uuid4()
    with index._writing(collection) as db:
        writing = threading.Thread(target=other.put, args=(collection, {fast: axis(1)}))
        writing.start()
        adapter._append(db, collection, [(slow, "tiny", adapter._pack(axis(0)))])
        writing.join(0.2)
        assert writing.is_alive()  # it waits, instead of drawing a number that is seen too early
        assert other.search(collection, axis(0), limit=9) == []
    writing.join()
    assert {h.passage_id for h in other.search(collection, axis(0), limit=9)} == {slow, fast}


def test_threads_can_search_at_once(index: FaissIndex, collection: UUID) -> None:
    vectors = units(200, seed=5)
    ids = [uuid4() for _ in vectors]
    index.put(collection, dict(zip(ids, vectors, strict=True)))
    with ThreadPoolExecutor(8) as pool:
        hits = list(pool.map(lambda v: index.search(collection, v, limit=1)[0], vectors))
    assert [hit.passage_id for hit in hits] == ids


def test_a_vector_of_another_dimension_is_refused(
    index: FaissIndex, collection: UUID, db: OpenDb
) -> None:
    a = uuid4()
    with pytest.raises(IndexMismatch, match=f"{a} has dimension 3, the index holds 8"):
        index.put(collection, {a: np.ones(3, dtype=np.float32)})
    with pytest.raises(IndexMismatch, match=r"shape \(3,\)"):
        index.search(collection, np.ones(3, dtype=np.float32), limit=1)
    index.put(collection, {a: axis(0)})
    with db.begin() as session:
        session.execute(update(DenseEntry).values(vector=b"\0" * 10))
    with pytest.raises(IndexMismatch, match=f"{a} has dimension 5"):
        index.search(collection, axis(0), limit=1)


def test_a_database_that_is_away_is_an_error_that_says_so(collection: UUID) -> None:
    engine = create_engine("postgresql+psycopg://127.0.0.1:9/none")
    index = index_on(sessionmaker(engine))
    for use in (
        lambda: index.search(collection, axis(0), limit=1),
        lambda: index.put(collection, {uuid4(): axis(0)}),
        lambda: index.count(collection),
    ):
        with pytest.raises(IndexUnavailable, match="cannot reach the database"):
            use()
