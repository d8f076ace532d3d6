"""Questions with passages that answer them, and with passages that nearly do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from clara.answerability.port import joined
from clara.evidence import content_of, places, words_of
from clara.training.changed import Vocabulary, changed
from clara.training.narrowed import Additions, mixed, narrowed
from clara.training.records import CompressionRecord, QuestionRecord
from clara.training.redacted import redacted, thinned

THINNED, CHANGED, NARROWED, MIXED = 0.35, 0.7, 0.8, 0.6
"""Of the questions, how many are also asked so in an epoch."""

BESIDE = 0.5
"""Of the examples, how many have other passages beside their own."""

TIMES = 3
"""How often an epoch asks what takes several passages to answer: most questions take one."""

ROOM = 2000
"""Characters of passages that are read as one: about what an encoder with 512 places holds."""

DRAWN, NEAREST = 40, 3
"""Passages of a source that are looked at for a question without candidates, and those of them kept
that share most words with it."""


@dataclass(frozen=True)
class Answered:
    """A question with its answer and where that stands."""

    question: str
    answer: str
    right: Sequence[str]
    """Passages it is answered from, by all together."""
    others: Sequence[str]
    """Passages that are near and do not answer it."""


@dataclass(frozen=True)
class Example:
    """A question and a passage, or several read as one."""

    question: str
    passage: str
    answers: bool
    answer: str = ""
    """Word for word in the passage; empty where it says it in other words, or not at all."""


def answered(
    asked: Sequence[QuestionRecord],
    told: Sequence[CompressionRecord] = (),
    *,
    held_out: Collection[str] = (),
    seed: int = 0,
) -> list[Answered]:
    """Every question once, in the order of the records.

    Args:
        asked: stage 2; those whose right documents are not known are left out.
        told: stage 1; their questions have no candidates, so some are found among the documents of
            their source.
        held_out: questions that are left out.
        seed: of what is drawn for these.
    """
    found: dict[str, Answered] = {}
    for one in asked:
        if one.positives and one.question not in held_out:
            right = [one.documents[at] for at in one.positives]
            others = [d for at, d in enumerate(one.documents) if at not in one.positives]
            found.setdefault(one.question, Answered(one.question, one.answer, right, others))
    sources: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
    for record in told:
        sources[record.source][record.document] = words_of(record.document)
    for record in told:
        for question, answer in record.pairs:
            if question in found or question in held_out:
                continue
            random = Random(f"{seed}:{question}")  # noqa: S311 - nothing secret
            near = _near(question, record.document, sources[record.source], random)
            found[question] = Answered(question, answer, [record.document], near)
    return list(found.values())


def weighted(questions: Sequence[Answered]) -> list[Answered]:
    """All of them, those that several passages answer together `TIMES` times."""
    return [one for one in questions for _ in range(TIMES if len(one.right) > 1 else 1)]


def examples(
    one: Answered, words: Vocabulary, additions: Additions, random: Random
) -> Iterator[Example]:
    """What an epoch makes of a question; nothing where what answers it is too long to be read.

    The passages that answer it, often once more without a sentence that they do not need, so that
    a gap alone tells nothing; others that do not, and of several that answer together some without
    the answer; the first without their answer; and with it, the question changed in a word, or
    made narrower, also with what a passage beside it says of something else. Now and then all of
    these stand among other passages.
    """
    if len(one.right) > 1 and len(joined(one.right)) > ROOM:
        return
    answer = one.answer if any(any(places(text, one.answer)) for text in one.right) else ""

    def example(question: str, passages: Sequence[str], *, answers: bool = False) -> Example:
        text = joined(_among(passages, one, random))
        return Example(question, text, answers, answer if answers else "")

    yield example(one.question, one.right, answers=True)
    shorter = _shorter(one.right, answer, random) if random.random() < THINNED else None
    if shorter is not None:
        yield example(one.question, shorter, answers=True)
    if one.others:
        yield example(one.question, [random.choice(one.others)])
    lacking = [text for text in one.right if not any(places(text, one.answer))]
    if len(one.right) > 1 and lacking:
        yield example(one.question, [random.choice(lacking)])
    less = redacted(one.question, one.right, answer) if answer else None
    if less is not None:
        yield example(one.question, less)
    if random.random() < CHANGED and (other := changed(one.question, one.right, words, random)):
        yield example(other, one.right)
    if random.random() < NARROWED and (
        other := narrowed(one.question, one.right, additions, random)
    ):
        yield example(other, one.right)
    if random.random() < MIXED and (found := mixed(one.question, one.right, one.others, random)):
        yield example(found[0], [*one.right, found[1]])


def _shorter(passages: Sequence[str], answer: str, random: Random) -> list[str] | None:
    """All of them, one that holds the answer less a sentence; None where none can spare any."""
    if not answer:
        return None
    at = random.choice([at for at, text in enumerate(passages) if any(places(text, answer))])
    shorter = thinned(passages[at], answer, random)
    return None if shorter is None else [*passages[:at], shorter, *passages[at + 1 :]]


def _among(passages: Sequence[str], one: Answered, random: Random) -> list[str]:
    """In any order, and now and then among others, as far as there is room."""
    found = list(passages)
    rest = [text for text in one.others if text not in found]
    if rest and random.random() < BESIDE:
        for text in random.sample(rest, min(len(rest), random.choice((1, 1, 2)))):
            if len(joined([*found, text])) <= ROOM:
                found.append(text)
    random.shuffle(found)
    return found


def _near(
    question: str, own: str, others: Mapping[str, frozenset[str]], random: Random
) -> list[str]:
    asked = content_of(question)
    drawn = random.sample(list(others), min(DRAWN, len(others)))
    rest = [text for text in drawn if text != own]
    return sorted(rest, key=lambda text: -len(asked & others[text]))[:NEAREST]
