"""A worker that is told to stop finishes what it can and gives back the rest: a real process, with
a real record and broker; only the work itself is made up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import redis

from clara.db.connect import OpenDb
from clara.db.tables import RunKind, RunStatus
from clara.embedded import client_url
from clara.settings import Settings
from tests.e2e.test_document_to_citation import until
from tests.workers.test_runs import queued, stored
from workers import enqueue
from workers.app import QUEUES, app, configure

GRACE_S = 40.0
"""Seconds the process may take: the least that anything here grants a worker, twice."""

WORKER = """
import time
from workers import bootstrap, enqueue, ready, runs, stopping, tasks
from workers.app import app
from celery.signals import celeryd_after_setup
from clara.errors import Cancelled

stopping.FINISH_S, app.conf.worker_soft_shutdown_timeout = 1.0, 3.0
celeryd_after_setup.disconnect(ready.load)
bootstrap.loaded = bootstrap.indexings = lambda: None

def endless(held, *_):
    while not held.stopped():
        time.sleep(0.02)
    raise Cancelled("stopped between two batches")

def short(held, *_):
    while not stopping.stopping():
        time.sleep(0.02)
    time.sleep(0.3)
    with bootstrap.database().begin() as db:
        runs.succeed(db, held, {}, {})

tasks.compress = tasks.recompress_part = endless
tasks.answer = lambda held, *_: (short if held.run.inputs["short"] else endless)(held)
app.worker_main(["worker", "-n", "w@here", "-Q", "query,compress,recompress", "--pool", "threads",
                 "-c", "8", "--without-mingle", "--without-gossip", "--loglevel", "WARNING"])
"""


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    configure(app, Settings(redis_url=broker_url))
    with redis.Redis.from_url(client_url(broker_url)) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def worker(
    database_url: str, broker_url: str, broker: redis.Redis, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    config = Settings(
        _env_file=None, redis_url=broker_url, database_url=database_url, home=tmp_path
    )
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], env=os.environ | config.variables(), start_new_session=True
    )
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def work(db: OpenDb, broker: redis.Redis) -> dict[str, UUID]:
    whole = queued(db, kind=RunKind.RECOMPRESS, status=RunStatus.RUNNING)
    made = {
        "short": queued(db, kind=RunKind.QUERY, inputs={"short": True}),
        "long": queued(db, kind=RunKind.QUERY, inputs={"short": False}),
        "compress": queued(db, kind=RunKind.COMPRESS),
        "part": queued(db, kind=RunKind.RECOMPRESS_PART, parent_id=whole),
    }
    for run_id in made.values():
        assert enqueue.send(stored(db, run_id).kind, run_id)
    return made | {"whole": whole}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGQUIT], ids=["warm", "soft"])
def test_a_worker_told_to_stop_leaves_no_lease_and_loses_nothing(
    db: OpenDb,
    broker: redis.Redis,
    worker: subprocess.Popen[bytes],
    work: dict[str, UUID],
    how: signal.Signals,
) -> None:
    until(lambda: {stored(db, run_id).status for run_id in work.values()} == {RunStatus.RUNNING})
    assert [broker.llen(queue) for queue in QUEUES] == [0] * len(QUEUES)

    worker.send_signal(how)
    code = worker.wait(timeout=GRACE_S)

    assert code == 0 or how is signal.SIGQUIT
    rows = {name: stored(db, run_id) for name, run_id in work.items()}
    assert rows.pop("short").status is RunStatus.SUCCEEDED
    assert rows.pop("whole").status is RunStatus.RUNNING  # it still waits for its part
    for name, row in rows.items():
        assert (row.status, row.lease, row.attempts) == (RunStatus.QUEUED, None, 0), name
    # each waits for another worker, with a message of its own
    assert [broker.llen(queue) for queue in ("query", "compress", "recompress")] == [1, 1, 1]
