from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import create_engine, text, update
from sqlalchemy.orm import sessionmaker

from clara.db.connect import OpenDb
from clara.db.tables import DenseEntry
from clara.errors import IndexMismatch, IndexUnavailable
from clara.retrieval import dense_log
from clara.retrieval import faiss as adapter
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.faiss_kinds import Kind, Sizes

DIMENSION = 8
SMALL = Sizes(flat=50, hnsw=150)


def index_on(db: OpenDb, **options: Any) -> FaissIndex:
    """An index whose upkeep is done at once."""
    defaults = {"encoder": "tiny", "dimension": DIMENSION, "later": lambda task: task()}
    return FaissIndex(db, **(defaults | options))


@pytest.fixture
def index(db: OpenDb) -> FaissIndex:
    return index_on(db)


@pytest.fixture
def other(db: OpenDb) -> FaissIndex:
    """The same database, as another process sees it."""
    return index_on(db)


def units(count: int, *, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def named(vectors: NDArray[np.float32]) -> dict[UUID, NDArray[np.float32]]:
    """Vectors by an id that follows from them: which ones an index learns from does not vary."""
    return {uuid5(NAMESPACE_OID, vector.tobytes().hex()): vector for vector in vectors}


def axis(number: int) -> NDArray[np.float32]:
    return np.eye(DIMENSION, dtype=np.float32)[number]


def found(index: FaissIndex, collection: UUID, limit: int = 500) -> set[UUID]:
    return {hit.passage_id for hit in index.search(collection, axis(0), limit=limit)}


def test_a_drop_and_new_vectors_between_two_searches_leave_only_the_new_ones(
    index: FaissIndex, other: FaissIndex, collection: UUID
) -> None:
    a, b = uuid4(), uuid4()
    index.put(collection, {a: axis(0)})
    assert found(other, collection) == {a}
    index.put(collection, {b: axis(0)})
    index.drop(collection)
    index.put(collection, {a: axis(3)})
    assert found(other, collection) == {a}


def test_a_long_log_is_read_in_pages(
    index: FaissIndex, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_log, "PAGE", 7)
    vectors = named(units(21, seed=3))
    index.put(collection, vectors)
    question = units(1, seed=4)[0]
    hits = index.search(collection, question, limit=21)
    order = sorted(vectors, key=lambda id_: -float(vectors[id_] @ question))
    assert [hit.passage_id for hit in hits] == order


@pytest.mark.parametrize(("count", "kind"), [(50, Kind.FLAT), (150, Kind.HNSW), (400, Kind.IVFPQ)])
def test_the_kind_of_index_follows_the_number_of_vectors(
    db: OpenDb, collection: UUID, count: int, kind: Kind
) -> None:
    index = index_on(db, sizes=SMALL)
    vectors = named(units(count))
    index.put(collection, vectors)
    found(index, collection)  # flat at first; the right kind is built after it
    assert index.kind(collection) is kind
    question = units(1, seed=9)[0]
    exact = {id_: float(vector @ question) for id_, vector in vectors.items()}
    hits = index.search(collection, question, limit=10)
    best = sorted(exact, key=lambda id_: -exact[id_])[:10]
    assert len({hit.passage_id for hit in hits} & set(best)) >= 9
    for hit in hits:
        assert hit.score == pytest.approx(exact[hit.passage_id], abs=1e-3)
    scores = index.scores(collection, question, list(vectors))
    assert list(scores) == list(vectors)
    assert list(scores.values()) == pytest.approx(list(exact.values()), abs=1e-3)


@pytest.mark.parametrize("count", [100, 300])
def test_a_built_index_follows_what_is_replaced_removed_and_dropped(
    db: OpenDb, collection: UUID, count: int
) -> None:
    index = index_on(db, sizes=SMALL)
    vectors = named(units(count))
    index.put(collection, vectors)
    found(index, collection)
    assert index.kind(collection) is not Kind.FLAT
    first, second, *_ = vectors
    index.put(collection, {first: axis(0)})
    index.delete(collection, [second])
    assert index.search(collection, axis(0), limit=1)[0].passage_id == first
    assert found(index, collection) <= vectors.keys() - {second}
    assert list(index.scores(collection, axis(0), [first, second])) == [first]
    index.drop(collection)
    assert found(index, collection) == set()
    index.put(collection, {second: axis(1)})
    assert found(index, collection) == {second}
    assert index.kind(collection) is Kind.FLAT


def test_a_copy_full_of_removed_vectors_is_built_anew(
    db: OpenDb, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "LEAST", 10)
    index = index_on(db)
    vectors = named(units(40))
    index.put(collection, vectors)
    gone = list(vectors)[:9]
    found(index, collection)
    index.delete(collection, gone)
    found(index, collection)
    assert index._copies[collection].dead == 9
    index.delete(collection, [list(vectors)[9], list(vectors)[10]])
    assert len(found(index, collection)) == 29
    assert index._copies[collection].dead == 0
    assert len(found(index, collection)) == 29


def test_a_long_tail_is_built_in(
    db: OpenDb, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "LEAST", 10)
    index = index_on(db, sizes=Sizes(flat=50, hnsw=1_000))
    index.put(collection, named(units(90)))
    found(index, collection)
    assert index._copies[collection].tail == 0
    index.put(collection, named(units(20, seed=1)))
    found(index, collection)
    assert index._copies[collection].tail == 20
    index.put(collection, named(units(20, seed=2)))
    found(index, collection)
    assert index._copies[collection].tail == 0
    assert len(found(index, collection)) == 130


def test_questions_are_answered_while_an_index_is_built(db: OpenDb, collection: UUID) -> None:
    waiting: list[Callable[[], None]] = []
    index = index_on(db, sizes=SMALL, later=waiting.append)
    vectors = named(units(100))
    index.put(collection, vectors)
    for _ in range(3):
        assert found(index, collection) == vectors.keys()
    assert index.kind(collection) is Kind.FLAT
    assert len(waiting) == 1  # asked for once
    more = named(units(5, seed=1))
    building = threading.Thread(target=waiting[0])
    building.start()
    index.put(collection, more)
    building.join()
    assert index.kind(collection) is Kind.HNSW
    assert found(index, collection) == vectors.keys() | more.keys()


def test_upkeep_that_fails_is_logged_and_left_alone_for_a_while(
    db: OpenDb, collection: UUID, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_on(db, sizes=SMALL)
    vectors = named(units(60))
    index.put(collection, vectors)
    tried: list[UUID] = []

    def fail(collection: UUID) -> None:
        tried.append(collection)
        raise OSError("no room")

    monkeypatch.setattr(index, "_renew", fail)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert found(index, collection) == vectors.keys()
    assert tried == [collection]
    assert "no room" in caplog.text
    monkeypatch.setattr(adapter, "monotonic", lambda: 1e12)
    found(index, collection)
    assert len(tried) == 2


def test_a_restart_reads_the_snapshot_and_only_the_rows_after_it(
    db: OpenDb, collection: UUID, tmp_path: Path
) -> None:
    options = {"snapshots": tmp_path, "snapshot_rows": 20, "sizes": SMALL}
    index = index_on(db, **options)
    vectors = named(units(120))
    index.put(collection, vectors)
    found(index, collection)
    later = named(units(3, seed=1))
    index.put(collection, later)
    index.delete(collection, [next(iter(vectors))])
    again = index_on(db, **options)
    with again._lock:
        read: list[int] = []
        news = again._log.news
        again._log.news = lambda db, c, mark: read.append(mark) or news(db, c, mark)  # type: ignore[method-assign, func-returns-value]
    expected = found(index, collection)
    assert (
        found(again, collection)
        == expected
        == (vectors.keys() | later.keys()) - {next(iter(vectors))}
    )
    assert min(read) > 0
    assert again.kind(collection) is Kind.HNSW


@pytest.mark.parametrize("damage", ["a byte", "the end", "everything"])
def test_a_damaged_snapshot_is_told_of_and_the_database_takes_its_place(
    db: OpenDb, collection: UUID, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    options = {"snapshots": tmp_path, "snapshot_rows": 20, "sizes": SMALL}
    index = index_on(db, **options)
    index.put(collection, named(units(120)))
    expected = found(index, collection)
    (path,) = tmp_path.rglob("*.snapshot")
    sound = path.read_bytes()
    middle = len(sound) // 2
    path.write_bytes(
        {
            "a byte": sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :],
            "the end": sound[:-7],
            "everything": b"",
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert found(index_on(db, **options), collection) == expected
    assert f"{path.name} is not used" in caplog.text
    (written,) = tmp_path.rglob("*.snapshot")  # a sound one in its place
    assert len(written.read_bytes()) == len(sound)


def test_a_snapshot_of_another_past_is_not_used(
    db: OpenDb, collection: UUID, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a database was restored from an older backup: numbers are given out again."""
    options = {"snapshots": tmp_path, "snapshot_rows": 1}
    index = index_on(db, **options)
    index.put(collection, {uuid4(): axis(0)})
    found(index, collection)
    with db.begin() as session:
        session.execute(text("TRUNCATE dense_entry RESTART IDENTITY"))
    kept = uuid4()
    index.put(collection, {kept: axis(1)})
    with caplog.at_level(logging.WARNING):
        assert found(index_on(db, **options), collection) == {kept}
    assert "the database holds something else" in caplog.text


def test_without_enough_new_rows_no_snapshot_is_written(
    db: OpenDb, collection: UUID, tmp_path: Path
) -> None:
    index = index_on(db, snapshots=tmp_path, snapshot_rows=10)
    index.put(collection, named(units(9)))
    found(index, collection)
    assert list(tmp_path.rglob("*.snapshot")) == []
    index.put(collection, named(units(1, seed=1)))
    found(index, collection)
    assert len(list(tmp_path.rglob("*.snapshot"))) == 1
    index.drop(collection)
    assert list(tmp_path.rglob("*.snapshot")) == []


def test_upkeep_in_the_background_ends_by_itself(db: OpenDb, collection: UUID) -> None:
    started: list[threading.Thread] = []

    def later(task: Callable[[], None]) -> None:
        before = set(threading.enumerate())
        adapter.in_background(task)
        started.extend(set(threading.enumerate()) - before)

    index = index_on(db, sizes=SMALL, later=later)
    index.put(collection, named(units(120)))
    found(index, collection)
    for each in started:
        assert each.daemon
        each.join()
    assert index.kind(collection) is Kind.HNSW


def test_rows_of_another_dimension_are_refused(
    index: FaissIndex, collection: UUID, db: OpenDb
) -> None:
    a = uuid4()
    index.put(collection, {a: axis(0)})
    with db.begin() as session:
        session.execute(update(DenseEntry).values(vector=b"\0" * 10))
    with pytest.raises(IndexMismatch, match=f"{a} has dimension 5"):
        index.search(collection, axis(0), limit=1)


def test_a_database_that_is_away_is_an_error_that_says_so(collection: UUID) -> None:
    index = index_on(sessionmaker(create_engine("postgresql+psycopg://127.0.0.1:9/none")))
    for use in (
        lambda: index.search(collection, axis(0), limit=1),
        lambda: index.put(collection, {uuid4(): axis(0)}),
        lambda: index.count(collection),
    ):
        with pytest.raises(IndexUnavailable, match="cannot reach the database"):
            use()


def test_a_database_that_comes_back_is_searched_without_a_restart(
    db: OpenDb, collection: UUID
) -> None:
    index = index_on(db)
    away = sessionmaker(create_engine("postgresql+psycopg://127.0.0.1:9/none"))
    index.put(collection, {uuid4(): axis(0)})
    there, index._log._open_db = index._log._open_db, away
    with pytest.raises(IndexUnavailable):
        found(index, collection)
    index._log._open_db = there
    assert len(found(index, collection)) == 1
