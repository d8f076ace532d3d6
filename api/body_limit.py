"""Counts the bytes of every body while they arrive, and refuses more than the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem
from clara.errors import BodyTooLarge

DRAIN_BYTES = 2**30
"""Read and thrown away after a refusal: a client that is still sending reads its answer after."""
DRAIN_S = 30.0
"""Seconds that may take at most."""
QUIET_S = 3.0
"""Seconds without a byte after which a client has stopped sending."""


class _Over(Exception):
    """Takes a request that is over the limit out of the app."""


class BodyLimit:
    """Pure ASGI middleware: no body over its limit in bytes reaches the app, or the memory.

    Args:
        app: what is limited.
        limit: of every body.
        streamed: limits of paths that begin so, whose routes hold no body in memory.
    """

    def __init__(
        self, app: ASGIApp, *, limit: int, streamed: Mapping[str, int] | None = None
    ) -> None:
        self.app = app
        self.limit = limit
        self.streamed = streamed or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif (declared := _declared(scope)) is not None and declared > self._limit(scope):
            await self._refuse(scope, receive, send, f"has {declared:,} bytes")
        else:
            await self._count(scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        found = (limit for path, limit in self.streamed.items() if scope["path"].startswith(path))
        return next(found, self.limit)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limit(scope)
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _Over
            return message

        async def answer(message: Message) -> None:
            nonlocal started
            if started or seen <= limit:  # else it speaks of a body it did not get
                started = True
                await send(message)

        try:
            await self.app(scope, counted, answer)
        except _Over:
            if started:
                raise
        if seen > limit and not started:
            await self._refuse(scope, receive, send, "is larger than that")

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, size: str) -> None:
        limit = self._limit(scope)
        error = BodyTooLarge(
            f"a body may have {limit:,} bytes; this one {size}",
            field="",
            limit=limit,
            remedy="Send fewer documents or files per request, or a smaller file.",
        )
        response = problem(error, scope["path"], headers={"Connection": "close"})
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
        await send(start)
        # The answer is complete for the client, but not for the server, which would close now
        # and lose it: a connection closed on unread bytes is reset.
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    seen = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while seen < DRAIN_BYTES:
                message = await asyncio.wait_for(receive(), QUIET_S)
                seen += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


def _declared(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
