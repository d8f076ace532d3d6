"""A document that is replaced again and again while it is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Event, Thread

import pytest

from clara.pipeline.answer import answer_question
from clara.pipeline.asking import Answering
from clara.pipeline.index import Indexing
from clara.retrieval.ports import LexicalIndex
from clara.types import Mode, SourceDocument
from tests.clara.pipeline.conftest import Ask, Write, index

REPLACED = 20


@pytest.fixture
def both(
    indexing: Indexing, answering: Answering, lexical: LexicalIndex
) -> tuple[Indexing, Answering]:
    """On each lexical index."""
    return replace(indexing, lexical=lexical), replace(answering, lexical=lexical)


def version(number: int) -> SourceDocument:
    """Of one passage, or of some, all of which tell the number."""
    text = f"The zeppelin number{number} leaves. " * (1 + number % 3 * 2)
    return SourceDocument(text.strip(), external_id="boat")


def test_each_answer_cites_exactly_one_version(
    both: tuple[Indexing, Answering], write: Write, ask: Ask
) -> None:
    indexing, answering = both
    index(write(version(0), SourceDocument("Bees dance.", external_id="bees")), indexing)
    done = Event()

    def keep_replacing() -> None:
        try:
            for number in range(1, REPLACED + 1):
                index(write(version(number)), indexing)
        finally:
            done.set()

    writer = Thread(target=keep_replacing)
    writer.start()
    try:
        seen = list(iter_versions(answering, ask, done))
    finally:
        writer.join()
    assert seen == sorted(seen)
    assert seen[-1] == REPLACED
    assert len(set(seen)) > 3


def iter_versions(answering: Answering, ask: Ask, done: Event) -> Iterator[int]:
    """Ask until all is replaced and once more; the version each answer cites."""
    last = False
    while not last:
        last = done.is_set()
        asked = ask("When does the zeppelin leave?", mode=Mode.TEXT, max_answer_tokens=1)
        answered = answer_question(asked, answering, stopped=lambda: False)
        about = [read.text for read in answered.passages if "zeppelin" in read.text]
        told = {word for text in about for word in text.split() if word.startswith("number")}
        assert len(told) == 1, about
        yield int(told.pop().removeprefix("number"))
