"""Requests at a fixed rate over kept connections, timed from the moment each was due."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

ACCEPTED = 202


@dataclass
class Sent:
    """What came of a stream of requests."""

    seconds: list[float] = field(default_factory=list)
    """From when a request was due to its answer: one that had to wait its turn is not flattered."""
    refused: int = 0
    wall_s: float = 0.0
    processor: dict[str, float] = field(default_factory=dict)
    """Seconds of processor time by process, where they were measured."""

    @property
    def rate(self) -> float:
        """Accepted requests a second."""
        return len(self.seconds) / self.wall_s


def send(
    host: str,
    port: int,
    path: str,
    body: Callable[[int], dict[str, Any]],
    *,
    rate: float,
    count: int,
    connections: int,
) -> Sent:
    """POST `count` bodies, `rate` a second, whatever the answers take."""
    sending = _send(host, port, path, body, rate=rate, count=count, connections=connections)
    return asyncio.run(sending)


async def _send(
    host: str,
    port: int,
    path: str,
    body: Callable[[int], dict[str, Any]],
    *,
    rate: float,
    count: int,
    connections: int,
) -> Sent:
    found, numbers = Sent(), iter(range(count))
    began = perf_counter()

    async def work() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for number in numbers:
            due = began + number / rate
            await asyncio.sleep(max(due - perf_counter(), 0))
            writer.write(_request(host, path, body(number)))
            status = await _status(reader)
            if status == ACCEPTED:
                found.seconds.append(perf_counter() - due)
            else:
                found.refused += 1
        writer.close()

    await asyncio.gather(*(work() for _ in range(connections)))
    found.wall_s = perf_counter() - began
    return found


def _request(host: str, path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def _status(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1])
