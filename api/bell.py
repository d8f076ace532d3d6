"""Tells who waits for a run that it has ended, at the commit that ends it.

A trigger on the table does the ringing (migration 0005), so no path to an end can forget it. Who
waits looks at the row all the same, now and then: a connection pooler may swallow what is rung.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import UUID

import psycopg
from sqlalchemy.engine import make_url

log = logging.getLogger(__name__)

CHANNEL = "run_ended"

POLL_S = 0.5
"""Seconds between two looks at a row while the bell is heard."""

POLL_DEAF_S = 0.05
"""The same while it is not."""

AGAIN_S = 1.0
"""Seconds until a lost connection is tried again."""


class Bell:
    """One connection that listens, and everybody who waits in this process.

    Args:
        url: address of Postgres.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url).set(drivername="postgresql")
        self._address = parsed.render_as_string(hide_password=False)
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        self._heard = False

    @property
    def poll_s(self) -> float:
        """Seconds to wait for the bell before looking at the row again."""
        return POLL_S if self._heard else POLL_DEAF_S

    @contextmanager
    def waits_for(self, run_id: UUID) -> Iterator[asyncio.Event]:
        """Set each time the run ends from now on; look at the row after entering, not before."""
        rung = asyncio.Event()
        self._waiting.setdefault(run_id, set()).add(rung)
        try:
            yield rung
        finally:
            others = self._waiting[run_id]
            others.discard(rung)
            if not others:
                del self._waiting[run_id]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listens while the body runs; a database that is away only makes it deaf."""
        task = asyncio.create_task(self._listen(), name="bell")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear()
            except (psycopg.Error, OSError) as error:
                log.info("not told of ended runs: %s", error)
            finally:
                self._heard = False
            await asyncio.sleep(AGAIN_S)

    async def _hear(self) -> None:
        connecting = psycopg.AsyncConnection.connect(
            self._address, autocommit=True, connect_timeout=5
        )
        async with await connecting as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            self._heard = True
            async for told in connection.notifies():
                for rung in self._waiting.get(UUID(told.payload), ()):
                    rung.set()
