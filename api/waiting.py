"""Long polls: wait for the bell, look at the row, and hold nothing in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import Query, Request
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from api.bell import Bell
from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Run

MAX_WAIT_S = 30

Wait = Annotated[
    float,
    Query(
        ge=0,
        le=MAX_WAIT_S,
        allow_inf_nan=False,
        description="Seconds to wait for the end of the run before answering.",
    ),
]


async def until_ended(request: Request, open_db: OpenDb, run_id: UUID, wait: float) -> None:
    """Return once the run has ended or is gone, the time is over, or nobody listens any more."""
    bell: Bell = request.app.state.bell
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait
    with bell.waits_for(run_id) as rung:
        while clock() < deadline:
            if await run_in_threadpool(_ended(open_db, run_id)) or await request.is_disconnected():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(bell.poll_s, deadline - clock())):
                    await rung.wait()
                    return  # it rings at the commit that ends the run


def _ended(open_db: OpenDb, run_id: UUID) -> Callable[[], bool]:
    def look() -> bool:
        with open_db() as db:
            return db.scalar(select(Run.status).where(Run.id == run_id)) not in ACTIVE

    return look
