"""How many questions a second the API takes, each with its row committed and its message sent."""

from __future__ import annotations

from sqlalchemy import func, select

from clara.client import Client
from clara.commands.supervisor import Running
from clara.db.connect import connect, open_db
from clara.db.tables import Run, RunKind

from . import http
from .http import Sent
from .processor import spent
from .system import COLLECTION, question

WARM_UP = 200


def measure(
    running: Running, client: Client, *, rate: float, seconds: float, connections: int
) -> Sent:
    """Questions at a fixed rate, with no worker that takes them.

    Raises:
        RuntimeError: an accepted question has no row.
    """
    client.create_collection(COLLECTION, exist_ok=True)
    config = running.config

    def send(count: int) -> Sent:
        return http.send(
            config.api_host,
            config.api_port,
            "/v1/questions",
            lambda number: {"collection": COLLECTION, "question": question(number)},
            rate=rate,
            count=count,
            connections=connections,
        )

    send(WARM_UP)
    with spent(running) as processor:
        found = send(round(rate * seconds))
    found.processor = processor
    rows = _rows(config.database_url)
    if rows < WARM_UP + len(found.seconds):
        raise RuntimeError(f"{WARM_UP + len(found.seconds)} questions accepted, {rows} rows")
    return found


def _rows(url: str) -> int:
    engine = connect(url)
    with open_db(engine)() as db:
        counted = db.scalar(select(func.count()).select_from(Run).where(Run.kind == RunKind.QUERY))
    engine.dispose()
    return counted or 0
