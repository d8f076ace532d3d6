"""Long polls: look at the row again and again, holding nothing in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated
from uuid import UUID

from fastapi import Query, Request
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Run

POLL_S = 0.05
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
    deadline = asyncio.get_running_loop().time() + wait
    while asyncio.get_running_loop().time() < deadline:
        if await run_in_threadpool(_ended(open_db, run_id)) or await request.is_disconnected():
            return
        await asyncio.sleep(POLL_S)


def _ended(open_db: OpenDb, run_id: UUID) -> Callable[[], bool]:
    def look() -> bool:
        with open_db() as db:
            return db.scalar(select(Run.status).where(Run.id == run_id)) not in ACTIVE

    return look
