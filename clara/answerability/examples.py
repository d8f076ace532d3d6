"""Questions with passages that answer them, and with passages that nearly do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from clara.evidence import places, words_of, worth
from clara.training.changed import Vocabulary, changed
from clara.training.narrowed import Additions, narrowed
from clara.training.records import CompressionRecord, QuestionRecord
from clara.training.redacted import redacted, thinned

THINNED, CHANGED, NARROWED = 0.35, 0.7, 0.8
"""Of the questions, how many are also asked so in an epoch."""

DRAWN, NEAREST = 40, 3
"""Passages of a source that are looked at for a question without candidates, and those of them kept
that share most words with it."""


@dataclass(frozen=True)
class Answered:
    """A question with its answer and where that stands."""

    question: str
    answer: str
    right: Sequence[str]
    """Passages it is answered from: by each alone where there is one, else by all together."""
    others: Sequence[str]
    """Passages that are near and do not answer it."""


@dataclass(frozen=True)
class Example:
    """A question and a passage."""

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


def examples(
    one: Answered, words: Vocabulary, additions: Additions, random: Random
) -> Iterator[Example]:
    """What an epoch makes of a question; nothing where its passages answer it only together.

    One passage that answers it, often once more without a sentence that it does not need, so that
    a gap alone tells nothing; one that does not; the first without its answer; and with it, the
    question changed in a word, or made narrower.
    """
    right = [text for text in one.right if any(places(text, one.answer))]
    if right:
        passage, answer = random.choice(right), one.answer
    elif len(one.right) == 1:
        passage, answer = one.right[0], ""
    else:
        return
    yield Example(one.question, passage, True, answer)
    shorter = thinned(passage, answer, random) if random.random() < THINNED else None
    if shorter is not None:
        yield Example(one.question, shorter, True, answer)
    if one.others:
        yield Example(one.question, random.choice(one.others), False)
    less = redacted(one.question, [passage], answer) if answer else None
    if less is not None:
        yield Example(one.question, less[0], False)
    if random.random() < CHANGED and (other := changed(one.question, one.right, words, random)):
        yield Example(other, passage, False)
    if random.random() < NARROWED and (
        other := narrowed(one.question, one.right, additions, random)
    ):
        yield Example(other, passage, False)


def _near(
    question: str, own: str, others: Mapping[str, frozenset[str]], random: Random
) -> list[str]:
    asked = {word for word in words_of(question) if worth(word) >= 1}
    drawn = random.sample(list(others), min(DRAWN, len(others)))
    rest = [text for text in drawn if text != own]
    return sorted(rest, key=lambda text: -len(asked & others[text]))[:NEAREST]
