from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
import redis
from kombu.exceptions import OperationalError
from sqlalchemy import func, select, update

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Run, RunKind, RunStatus
from clara.embedded import client_url
from clara.settings import Settings
from tests.factories import make_collection, make_run
from tests.workers.test_runs import begun, queued, stored, taken
from workers import enqueue
from workers.app import QUEUES, TASK_QUEUES, app, configure
from workers.enqueue import TASKS, queue_run, send, transaction
from workers.reconcile import reconcile


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    configure(app, Settings(redis_url=broker_url))
    client = redis.Redis.from_url(client_url(broker_url))
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


def round_of(db: OpenDb) -> dict[str, int]:
    return reconcile(db, Settings())


def age(db: OpenDb, run_id: UUID, **columns: float) -> None:
    """Move moments of a run into the past, by seconds."""
    values = {
        name: func.clock_timestamp() - timedelta(seconds=seconds)
        for name, seconds in columns.items()
    }
    with db.begin() as session:
        session.execute(update(Run).where(Run.id == run_id).values(**values))


def test_a_queued_run_without_a_message_is_sent_again(db: OpenDb, broker: redis.Redis) -> None:
    age(db, queued(db), queued_at=60, sent_at=60)
    assert round_of(db)["sent"] == 1
    assert broker.llen("query") == 1
    assert round_of(db)["sent"] == 0


def test_an_emptied_broker_is_rebuilt_from_the_table_within_a_round(
    db: OpenDb, broker: redis.Redis
) -> None:
    """What waits, what a dead worker held, and a parent whose last child has ended."""
    for kind in TASKS:
        age(db, queued(db, kind=kind), queued_at=60, sent_at=60)
    held = queued(db, kind=RunKind.TRAIN)
    begun(db, held)
    leased = queued(db, kind=RunKind.RECOMPRESS_PART)
    taken(db, leased)
    for run_id in (held, leased):
        age(db, run_id, lease_until=1)
    parent = queued(db, kind=RunKind.NIGHT, status=RunStatus.RUNNING)
    queued(db, kind=RunKind.RECOMPRESS, status=RunStatus.SUCCEEDED, parent_id=parent)
    waits = queued(db, kind=RunKind.NIGHT, status=RunStatus.RUNNING)
    taken(db, queued(db, kind=RunKind.RECOMPRESS, parent_id=waits))
    broker.flushall()
    done = round_of(db)
    assert (done["taken_back"], done["parents"]) == (2, 1)
    found = {queue: messages(broker, queue) for queue in QUEUES}
    expected = {queue: Counter[str]() for queue in QUEUES}
    for kind in [*TASKS, RunKind.TRAIN, RunKind.RECOMPRESS_PART, RunKind.NIGHT]:
        expected[TASK_QUEUES[TASKS[kind]]][TASKS[kind]] += 1
    assert found == expected
    assert not any(round_of(db).values())


def messages(broker: redis.Redis, queue: str) -> Counter[str]:
    """Names of the tasks on a queue."""
    return Counter(json.loads(raw)["headers"]["task"] for raw in broker.lrange(queue, 0, -1))


def test_a_long_queue_is_not_sent_anew(db: OpenDb, broker: redis.Redis) -> None:
    for _ in range(5):
        age(db, queued(db), queued_at=600, sent_at=600)
    assert round_of(db)["sent"] == 5
    for run_id in [row.id for row in all_runs(db)]:
        age(db, run_id, sent_at=600)
    assert round_of(db)["sent"] == 0
    broker.lpop("query")
    broker.lpop("query")
    assert round_of(db)["sent"] == 2


def test_a_fresh_run_or_one_that_waits_for_its_next_attempt_is_left_alone(
    db: OpenDb, broker: redis.Redis
) -> None:
    queued(db)
    age(db, queued(db), queued_at=-30, sent_at=60)
    assert round_of(db)["sent"] == 0


def test_a_run_whose_worker_died_is_taken_back_and_sent(db: OpenDb, broker: redis.Redis) -> None:
    run_id = queued(db)
    taken(db, run_id)
    age(db, run_id, lease_until=1)
    done = {"given_up": 0, "taken_back": 1, "parents": 0, "builds": 0, "sent": 1}
    assert round_of(db) == done
    row = stored(db, run_id)
    assert (row.status, row.attempts, row.lease) == (RunStatus.QUEUED, 1, None)


def test_a_live_lease_is_left_alone(db: OpenDb, broker: redis.Redis) -> None:
    taken(db, queued(db))
    assert not any(round_of(db).values())


def test_a_lexical_index_that_nobody_builds_any_more_is_given_up(
    db: OpenDb, broker: redis.Redis
) -> None:
    with db.begin() as session:
        shop = make_collection(session, lexical_number=2, lexical_building=2)
        at_work = make_run(session, RunKind.RECOMPRESS, RunStatus.FAILED, shop)
    assert round_of(db)["builds"] == 1
    assert round_of(db)["builds"] == 0
    with db.begin() as session:
        left = session.get_one(Collection, shop.id)
        assert (left.lexical_number, left.lexical_building) == (2, None)
        (strays,) = session.scalars(select(Run).where(Run.kind == RunKind.PURGE))
        assert strays.inputs == {"collection_id": str(shop.id), "strays": True}
        left.lexical_building = 2
        session.get_one(Run, at_work.id).status = RunStatus.QUEUED
    assert round_of(db)["builds"] == 0


def test_a_run_that_killed_three_workers_is_given_up(db: OpenDb, broker: redis.Redis) -> None:
    run_id = queued(db, attempts=2)
    taken(db, run_id)
    age(db, run_id, lease_until=1)
    assert round_of(db)["given_up"] == 1
    row = stored(db, run_id)
    assert row.status is RunStatus.FAILED
    assert row.error
    assert row.error["code"] == "worker-lost"


def test_a_broker_that_is_down_costs_no_run(db: OpenDb) -> None:
    configure(app, Settings(redis_url="redis://127.0.0.1:1/0"))
    with transaction(db) as (session, send):
        run = queue_run(session, send, RunKind.PURGE, collection_id=None, inputs={})
    assert stored(db, run.id).status is RunStatus.QUEUED


def all_runs(db: OpenDb) -> list[Run]:
    with db() as session:
        return list(session.query(Run))


def test_a_broker_that_says_nothing_holds_nobody_up(db: OpenDb) -> None:
    """It takes connections and never answers; a worker's own messages come another way."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        configure(app, Settings(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        assert pool.submit(send, RunKind.PURGE, queued(db)).result(timeout=30) is False
        age(db, queued(db), queued_at=60, sent_at=60)
        with pytest.raises(OperationalError):
            pool.submit(round_of, db).result(timeout=30)
    consuming = app.connection_for_read()
    assert "socket_timeout" not in consuming.transport_options


def test_a_broker_that_took_one_message_not_is_not_asked_to_take_the_others(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[UUID] = []

    def refuse(_: RunKind, run_id: UUID) -> bool:
        asked.append(run_id)
        return False

    monkeypatch.setattr(enqueue, "send", refuse)
    with transaction(db) as (session, later):
        for _ in range(3):
            queue_run(session, later, RunKind.PURGE, collection_id=None, inputs={})
    assert len(asked) == 1
    assert len(all_runs(db)) == 3
