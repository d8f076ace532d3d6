"""What the recall gate asks: passages drawn evenly, a question about each, and what users asked."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from clara.db.tables import Document, DocumentStatus, Latent, Passage, Question
from clara.evidence import NUMBER_WEIGHT, STOP_WORDS, WORD
from clara.sentences import sentences

MOST_WORDS = 14
"""Words of a question, so that every checkpoint reads it whole."""

HIDE_FROM = 4
"""Words with content from which on one is left out: a question is not its answer."""


@dataclass(frozen=True)
class Case:
    """A question of the gate: about a passage, or one that a user asked."""

    passage: UUID | None
    question: str
    answered: bool
    """Whether it is also answered, and not only searched for."""


def question_about(text: str, seed: UUID) -> str | None:
    """A question about the sentence that says most of a passage; the same one every time.

    Words that few sentences of the passage share count most, numbers and names more than others.
    One of them, chosen by `seed`, is left out, to be found.

    Returns None where no sentence has a word with content.
    """
    held = [_content(text[span.start : span.end]) for span in sentences(text)]
    counts = Counter(word.casefold() for words in held for word in set(words))
    total = len(held) + 1

    def tells(words: list[str]) -> float:
        return sum(
            (NUMBER_WEIGHT if word[0].isdigit() or word[0].isupper() else 1.0)
            * math.log(total / counts[word.casefold()])
            for word in dict.fromkeys(words[:MOST_WORDS])
        )

    words = max(held, key=tells, default=[])[:MOST_WORDS]
    if not words:
        return None
    hidden = seed.int % len(words) if len(words) >= HIDE_FROM else -1
    asked = " ".join(word for at, word in enumerate(words) if at != hidden)
    return f"What is said of {asked}?"


def draw(
    db: Session, collection: UUID, fingerprint: str, *, passages: int, answers: int
) -> list[Case]:
    """The questions of one gate: about passages that have their new latent, evenly by id, and the
    last ones users asked.

    Args:
        db: a transaction.
        collection: its id.
        fingerprint: of the new latents.
        passages: most of them.
        answers: questions that are also answered; up to half of them are users' own.
    """
    asked = _recent(db, collection, answers // 2)
    drawn = _evenly(db, collection, fingerprint, passages)
    about = [
        (id_, question)
        for id_, text in drawn
        if (question := question_about(text, id_)) is not None
    ]
    told = answers - len(asked)
    return [Case(id_, question, at < told) for at, (id_, question) in enumerate(about)] + [
        Case(None, question, answered=True) for question in asked
    ]


def _evenly(db: Session, collection: UUID, fingerprint: str, count: int) -> list[tuple[UUID, str]]:
    if not count:
        return []
    latent = exists().where(Latent.passage_id == Passage.id, Latent.fingerprint == fingerprint)
    number = func.row_number().over(order_by=Passage.id) - 1
    ids = (
        select(Passage.id, number.label("number"), func.count().over().label("all"))
        .join(Document, Document.id == Passage.document_id)
        .where(
            Passage.collection_id == collection,
            Document.status != DocumentStatus.PENDING,
            latent,
        )
        .subquery()
    )
    # one of every all / count: the numbers at which that share passes the next whole number
    chosen = (ids.c.number * count) % ids.c.all < count
    wanted = (
        select(Passage.id, Passage.text)
        .join(ids, ids.c.id == Passage.id)
        .where(chosen)
        .order_by(Passage.id)
        .limit(count)
    )
    return [(row[0], row[1]) for row in db.execute(wanted)]


def _recent(db: Session, collection: UUID, count: int) -> list[str]:
    """The last different questions without conditions."""
    if not count:
        return []
    asked = (
        select(Question.text)
        .where(
            Question.collection_id == collection,
            Question.search_only.is_(False),
            func.jsonb_array_length(Question.filters) == 0,
        )
        .group_by(Question.text)
        .order_by(func.max(Question.created_at).desc())
        .limit(count)
    )
    return list(db.scalars(asked))


def _content(sentence: str) -> list[str]:
    return [word for word in WORD.findall(sentence) if word.casefold() not in STOP_WORDS]
