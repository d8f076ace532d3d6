"""Questions while the generation that answers is switched back and forth, again and again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

from sqlalchemy import func, select

from clara.client import Client
from clara.commands.supervisor import Running
from clara.db.connect import OpenDb, connect, open_db
from clara.db.tables import ACTIVE, Answer, Generation, Question, Run, RunStatus

from . import http
from .system import COLLECTION, question

DISTINCT = 20
"""Different questions."""

BETWEEN_S = 0.2
"""Seconds between two switches."""

END_S = 120.0
"""Seconds that the last answers may take."""

OPTIONS: dict[str, Any] = {"mode": "latent", "max_answer_tokens": 8}

Answers = dict[tuple[int, str], str]
"""Text by generation and question."""


@dataclass
class Switched:
    """What became of questions asked while the generation was switched."""

    asked: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """By the error's code."""
    mixed: int = 0
    """Answers that their generation does not give when it is alone."""
    by_generation: Counter[int] = field(default_factory=Counter)
    switches: int = 0
    telling: int = 0
    """Of the different questions, those the two generations answer differently: only these can tell
    a mixed answer."""


def measure(
    running: Running, client: Client, other: Path, *, rate: float, seconds: float
) -> Switched:
    """Switch between two generations, each of another checkpoint, while questions keep coming.

    Args:
        running: the system, its collection filled.
        client: of its API.
        other: folder of the second checkpoint.
        rate: questions a second.
        seconds: of asking.
    """
    _build_another(running, client, other)
    alone = _answers_alone(client) | _answers_alone(client)
    with _database(running) as db:
        began = _now(db)
        switches, sent = _ask_and_switch(running, client, rate=rate, seconds=seconds)
        _await_end(db)
        found = _compared(db, began, alone)
    found.switches, found.refused = switches, sent.refused
    first, second = sorted({number for number, _ in alone})
    texts = {text for _, text in alone}
    found.telling = sum(alone[first, text] != alone[second, text] for text in texts)
    return found


def _build_another(running: Running, client: Client, other: Path) -> None:
    checkpoint = client.register_checkpoint(str(other), base=running.config.base_model)
    client.ended(client.recompress(COLLECTION, checkpoint=checkpoint, gate=False))


def _answers_alone(client: Client) -> Answers:
    """What the other generation answers while nothing changes."""
    client.roll_back(COLLECTION)
    found: Answers = {}
    for number in range(DISTINCT):
        answer = client.ask(COLLECTION, question(number), **OPTIONS)["answer"]
        found[answer["generation"], question(number)] = answer["text"]
    return found


def _ask_and_switch(
    running: Running, client: Client, *, rate: float, seconds: float
) -> tuple[int, http.Sent]:
    over = Event()

    def switch() -> int:
        count = 0
        while not over.wait(BETWEEN_S):
            client.roll_back(COLLECTION)
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(switch)
        try:
            sent = http.send(
                running.config.api_host,
                running.config.api_port,
                "/v1/questions",
                lambda n: {"collection": COLLECTION, "question": question(n % DISTINCT)} | OPTIONS,
                rate=rate,
                count=round(rate * seconds),
                connections=8,
            )
        finally:
            over.set()
        return switching.result(), sent


def _await_end(db: OpenDb) -> None:
    ends = time.monotonic() + END_S
    with db() as session:
        while session.scalar(select(func.count()).select_from(Run).where(Run.status.in_(ACTIVE))):
            if time.monotonic() > ends:
                raise TimeoutError(f"questions are left after {END_S:.0f} s")
            time.sleep(0.2)


def _compared(db: OpenDb, began: datetime, alone: Answers) -> Switched:
    found = Switched()
    rows = (
        select(Question.text, Run.status, Run.error, Answer.text, Generation.number)
        .join(Run, Run.id == Question.run_id)
        .outerjoin(Answer, Answer.question_id == Question.id)
        .outerjoin(Generation, Generation.id == Answer.generation_id)
        .where(Question.created_at > began)
    )
    with db() as session:
        for asked, status, error, text, number in session.execute(rows):
            found.asked += 1
            if status is not RunStatus.SUCCEEDED:
                found.failed[(error or {}).get("code", str(status))] += 1
                continue
            found.by_generation[number] += 1
            found.mixed += alone[number, asked] != text
    return found


@contextmanager
def _database(running: Running) -> Iterator[OpenDb]:
    engine = connect(running.config.database_url)
    yield open_db(engine)
    engine.dispose()


def _now(db: OpenDb) -> datetime:
    with db() as session:
        found: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return found
