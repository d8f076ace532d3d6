from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
import redis
from sqlalchemy import func, update

from clara.db.connect import OpenDb
from clara.db.tables import Run, RunKind, RunStatus
from clara.embedded import client_url
from clara.settings import Settings
from tests.workers.test_runs import queued, stored, taken
from workers.app import app, configure
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


def test_an_emptied_broker_is_rebuilt_from_the_table(db: OpenDb, broker: redis.Redis) -> None:
    for kind in (RunKind.QUERY, RunKind.INGEST, RunKind.PURGE, RunKind.COMPRESS):
        age(db, queued(db, kind=kind), queued_at=60, sent_at=60)
    broker.flushall()
    assert round_of(db)["sent"] == 4
    assert [broker.llen(name) for name in ("query", "ingest", "compress")] == [1, 2, 1]


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
    assert round_of(db) == {"given_up": 0, "taken_back": 1, "sent": 1}
    row = stored(db, run_id)
    assert (row.status, row.attempts, row.lease) == (RunStatus.QUEUED, 1, None)


def test_a_live_lease_is_left_alone(db: OpenDb, broker: redis.Redis) -> None:
    taken(db, queued(db))
    assert round_of(db) == {"given_up": 0, "taken_back": 0, "sent": 0}


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
    from workers.enqueue import queue_run, transaction

    configure(app, Settings(redis_url="redis://127.0.0.1:1/0"))
    with transaction(db) as (session, send):
        run = queue_run(session, send, RunKind.PURGE, collection_id=None, inputs={})
    assert stored(db, run.id).status is RunStatus.QUEUED


def all_runs(db: OpenDb) -> list[Run]:
    with db() as session:
        return list(session.query(Run))
