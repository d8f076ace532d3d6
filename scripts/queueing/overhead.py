"""What API and queue add to an answer: the same question through HTTP and to the library."""

from __future__ import annotations

import os
from time import perf_counter
from uuid import uuid4

from sqlalchemy import select

from clara.client import Client
from clara.commands.supervisor import Running, environment
from clara.db.tables import Collection
from clara.pipeline.answer import answer_question
from clara.pipeline.asking import Asked
from clara.settings import settings
from clara.types import Mode

from .system import COLLECTION, question

TOKENS = 4


def measure(running: Running, client: Client, *, questions: int) -> dict[str, list[float]]:
    """Seconds of both ways, question by question in turns; the same models, loaded twice."""
    os.environ.update(environment(running.config))
    settings.cache_clear()
    from workers import bootstrap

    loaded = bootstrap.loaded()
    with bootstrap.database()() as db:
        collection = db.scalars(select(Collection.id).where(Collection.name == COLLECTION)).one()
    times: dict[str, list[float]] = {"http": [], "library": []}
    for number in range(-5, questions):  # the first five only warm up
        began = perf_counter()
        client.ask(COLLECTION, question(abs(number)), mode="text", max_answer_tokens=TOKENS)
        answered = perf_counter()
        answering, _ = loaded.serving(collection)
        asked = Asked(
            id=uuid4(),
            collection_id=collection,
            text=question(abs(number)),
            mode=Mode.TEXT,
            top_k=settings().top_k,
            max_answer_tokens=TOKENS,
        )
        direct = perf_counter()
        answer_question(asked, answering, stopped=lambda: False)
        ended = perf_counter()
        if number >= 0:
            times["http"].append(answered - began)
            times["library"].append(ended - direct)
    return times
