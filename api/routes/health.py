"""Health: does the process live, and can it work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import redis
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api import schemas
from api.deps import Db
from api.errors import database_unavailable, raise_all
from clara.db.connect import OpenDb
from clara.embedded import client_url
from clara.errors import BrokerUnavailable, ClaraError

router = APIRouter(tags=["health"])
log = logging.getLogger(__name__)

CHECK_S = 2.0
"""Seconds a server may take to answer."""


@router.get("/healthz", summary="Does the process live", responses=schemas.problems())
async def healthz() -> schemas.Health:
    """Answers without asking any other server."""
    return schemas.Health()


@router.get("/readyz", summary="Can it work", responses=schemas.problems())
async def readyz(request: Request, open_db: Db) -> schemas.Health:
    """Whether the database and the broker answer."""
    limiter: CapacityLimiter = request.app.state.checking
    broker_url: str = request.app.state.broker_url
    checks = (
        _in_time(lambda: _check_database(open_db), database_unavailable(), limiter),
        _in_time(lambda: _check_broker(broker_url), _broker_unavailable(), limiter),
    )
    raise_all([fault for fault in await asyncio.gather(*checks) if fault])
    return schemas.Health()


async def _in_time(
    check: Callable[[], None], fault: ClaraError, limiter: CapacityLimiter
) -> ClaraError | None:
    """The fault, if the check raises or takes too long; the thread is left behind then."""
    try:
        async with asyncio.timeout(CHECK_S):
            await to_thread.run_sync(check, abandon_on_cancel=True, limiter=limiter)
    except (TimeoutError, SQLAlchemyError, redis.RedisError, OSError) as error:
        log.warning("not ready: %s: %s", fault.message, error)
        return fault
    return None


def _check_database(open_db: OpenDb) -> None:
    with open_db() as db:
        db.execute(text("SELECT 1"))


def _check_broker(broker_url: str) -> None:
    with redis.Redis.from_url(
        client_url(broker_url), socket_connect_timeout=CHECK_S, socket_timeout=CHECK_S
    ) as client:
        client.ping()


def _broker_unavailable() -> BrokerUnavailable:
    return BrokerUnavailable(
        "the broker does not answer",
        remedy="Try again in a moment; what is written meanwhile is stored and sent later.",
    )
