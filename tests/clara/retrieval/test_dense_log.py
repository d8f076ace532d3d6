from __future__ import annotations

import threading
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.orm import sessionmaker

from clara.db.connect import OpenDb
from clara.db.tables import DenseEntry
from clara.errors import IndexUnavailable
from clara.retrieval import dense_log
from clara.retrieval.dense_log import EVERYTHING, DenseLog, Digest

DIMENSION = 4


@pytest.fixture
def log(db: OpenDb) -> DenseLog:
    return log_on(db)


def log_on(db: OpenDb, *, encoder: str = "tiny") -> DenseLog:
    return DenseLog(db, encoder=encoder, dimension=DIMENSION)


def axis(number: int) -> NDArray[np.float32]:
    return np.eye(DIMENSION, dtype=np.float32)[number]


def rows(db: OpenDb, collection: UUID) -> int:
    with db() as session:
        query = select(func.count()).where(DenseEntry.collection_id == collection)
        return session.scalar(query) or 0


def news(log: DenseLog, collection: UUID, watermark: int = 0) -> list[tuple[int, UUID, bool]]:
    """What a follower reads: seq, passage, and whether it has a vector."""
    with log.reading() as db:
        read = log.news(db, collection, watermark)
    return [(row.seq, row.passage_id, row.vector is not None) for row in read]


def test_a_passage_keeps_one_row_and_every_change_gives_it_a_later_number(
    log: DenseLog, collection: UUID, db: OpenDb
) -> None:
    a, watermark = uuid4(), 0
    for change, there in (
        (lambda: log.put(collection, {a: axis(0)}), True),
        (lambda: log.put(collection, {a: axis(1)}), True),
        (lambda: log.delete(collection, [a, uuid4()]), False),
        (lambda: log.put(collection, {a: axis(2)}), True),
    ):
        change()
        ((watermark, passage, has_vector),) = news(log, collection, watermark)
        assert (passage, has_vector) == (a, there)
        assert rows(db, collection) == 1


def test_removing_twice_or_what_was_never_there_tells_nobody(
    log: DenseLog, collection: UUID
) -> None:
    a = uuid4()
    log.put(collection, {a: axis(0)})
    log.delete(collection, [a])
    before = news(log, collection)
    log.delete(collection, [a, uuid4()])
    log.delete(collection, [])
    assert news(log, collection) == before


def test_a_drop_leaves_one_row_for_each_encoder(
    log: DenseLog, collection: UUID, db: OpenDb
) -> None:
    other = log_on(db, encoder="other")
    log.drop(collection)
    assert rows(db, collection) == 0
    for each in (log, other):
        each.put(collection, {uuid4(): axis(0), uuid4(): axis(1)})
    for _ in range(2):
        log.drop(collection)
        assert rows(db, collection) == 2
    for each in (log, other):
        assert [(p, there) for _, p, there in news(each, collection)] == [(EVERYTHING, False)]


def test_vectors_come_back_at_length_one(log: DenseLog, collection: UUID) -> None:
    vector = np.array([0.1, 0.7, -0.7, 0.1], dtype=np.float32)
    log.put(collection, {uuid4(): vector, uuid4(): axis(0)})
    assert log.sample(collection, 1).shape == (1, DIMENSION)
    sample = log.sample(collection, 9)
    assert np.linalg.norm(sample, axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert max((sample @ vector).tolist()) == pytest.approx(1, abs=1e-6)


def test_scores_are_cosines_however_many_are_asked_for(
    log: DenseLog, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_log, "PAGE", 2)
    ids = [uuid4() for _ in range(DIMENSION)]
    log.put(collection, {id_: axis(number) for number, id_ in enumerate(ids)})
    asked = [uuid4(), *ids, uuid4()]
    assert log.scores(collection, axis(1), asked) == {ids[1]: 1, ids[0]: 0, ids[2]: 0, ids[3]: 0}
    assert log.scores(collection, axis(1), []) == {}


def test_a_writer_that_began_first_but_commits_last_is_not_missed(
    log: DenseLog, collection: UUID, db: OpenDb
) -> None:
    slow, fast = uuid4(), uuid4()
    with log.writing(collection) as session:
        writing = threading.Thread(target=log_on(db).put, args=(collection, {fast: axis(1)}))
        writing.start()
        session.execute(
            dense_log._PUT,
            {
                "collection": collection,
                "encoder": "tiny",
                "passages": [slow],
                "vectors": [bytes(2 * DIMENSION)],
            },
        )
        writing.join(0.2)
        assert writing.is_alive()  # it waits, instead of drawing a number that is seen too early
        assert news(log, collection) == []
    writing.join()
    assert [passage for _, passage, _ in news(log, collection)] == [slow, fast]


def test_the_digest_tells_states_apart(log: DenseLog, collection: UUID, db: OpenDb) -> None:
    def digest(of: DenseLog) -> Digest:
        with of.reading(frozen=True) as session:
            return of.digest(session, collection)

    a, b = uuid4(), uuid4()
    seen = [digest(log)]
    assert seen == [Digest(0, 0)]
    for change in (
        lambda: log.put(collection, {a: axis(0)}),
        lambda: log.put(collection, {b: axis(0)}),
        lambda: log.put(collection, {a: axis(1)}),
        lambda: log.delete(collection, [b]),
    ):
        change()
        seen.append(digest(log))
    assert len(set(seen)) == len(seen)
    assert digest(log_on(db, encoder="other")) == Digest(0, 0)


def test_a_frozen_transaction_sees_one_moment(log: DenseLog, collection: UUID) -> None:
    log.put(collection, {uuid4(): axis(0)})
    with log.reading(frozen=True) as session:
        before = log.digest(session, collection)
        log.put(collection, {uuid4(): axis(1)})
        assert log.digest(session, collection) == before
    with log.reading() as session:
        level = session.scalar(text("SELECT current_setting('transaction_isolation')"))
    assert level == "read committed"


def test_a_database_that_is_away_is_an_error_that_says_so(collection: UUID) -> None:
    log = log_on(sessionmaker(create_engine("postgresql+psycopg://127.0.0.1:9/none")))
    for use in (
        lambda: log.put(collection, {uuid4(): axis(0)}),
        lambda: log.delete(collection, [uuid4()]),
        lambda: log.count(collection),
        lambda: news(log, collection),
    ):
        with pytest.raises(IndexUnavailable, match="cannot reach the database"):
            use()
