from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import update

from api import bell as bells
from api.bell import Bell
from clara.db.connect import OpenDb
from clara.db.tables import Run, RunStatus
from tests.factories import make_run

ENDS = (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)


@pytest.fixture
def run_id(db: OpenDb) -> UUID:
    with db.begin() as session:
        return make_run(session).id


def end(db: OpenDb, run_id: UUID, status: RunStatus) -> None:
    with db.begin() as session:
        session.execute(update(Run).where(Run.id == run_id).values(status=status))


async def heard(bell: Bell) -> None:
    while bell.poll_s == bells.POLL_DEAF_S:
        await asyncio.sleep(0.01)


def within(url: str, body: Callable[[Bell], Coroutine[Any, Any, None]]) -> None:
    """Run with a bell that is heard."""

    async def run() -> None:
        bell = Bell(url)
        async with bell.listening(), asyncio.timeout(20):
            await heard(bell)
            await body(bell)

    asyncio.run(run())


@pytest.mark.parametrize("status", ENDS)
def test_every_end_of_a_run_rings(
    db: OpenDb, database_url: str, run_id: UUID, status: RunStatus
) -> None:
    async def body(bell: Bell) -> None:
        with bell.waits_for(run_id) as rung:
            await asyncio.to_thread(end, db, run_id, status)
            await rung.wait()

    within(database_url, body)


def test_nothing_else_rings(db: OpenDb, database_url: str, run_id: UUID) -> None:
    with db.begin() as session:
        other = make_run(session).id

    async def body(bell: Bell) -> None:
        with bell.waits_for(run_id) as rung, bell.waits_for(other) as last:
            await asyncio.to_thread(end, db, run_id, RunStatus.LEASED)
            await asyncio.to_thread(end, db, run_id, RunStatus.RUNNING)
            await asyncio.to_thread(end, db, other, RunStatus.FAILED)
            await last.wait()
            assert not rung.is_set()

    within(database_url, body)


def test_all_who_wait_for_a_run_are_told_and_forgotten(
    db: OpenDb, database_url: str, run_id: UUID
) -> None:
    async def body(bell: Bell) -> None:
        with bell.waits_for(run_id) as one, bell.waits_for(run_id) as other:
            await asyncio.to_thread(end, db, run_id, RunStatus.SUCCEEDED)
            await asyncio.gather(one.wait(), other.wait())
        assert bell._waiting == {}

    within(database_url, body)


def test_a_lost_connection_is_made_again(
    db: OpenDb, database_url: str, run_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bells, "AGAIN_S", 0.01)

    def cut() -> None:
        with psycopg.connect(database_url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )

    async def body(bell: Bell) -> None:
        await asyncio.to_thread(cut)
        while bell.poll_s == bells.POLL_S:
            await asyncio.sleep(0.001)
        await heard(bell)
        with bell.waits_for(run_id) as rung:
            await asyncio.to_thread(end, db, run_id, RunStatus.SUCCEEDED)
            await rung.wait()

    within(database_url, body)


def test_without_a_database_it_is_deaf_and_ends_at_once(tmp_path: object) -> None:
    async def run() -> None:
        bell = Bell(f"postgresql://nobody@/nothing?host={tmp_path}")
        async with bell.listening():
            await asyncio.sleep(0.05)
            assert bell.poll_s == bells.POLL_DEAF_S
            with bell.waits_for(uuid4()) as rung:
                assert not rung.is_set()

    began = monotonic()
    asyncio.run(run())
    assert monotonic() - began < bells.AGAIN_S * 5
