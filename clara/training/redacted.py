"""Documents without the sentences that hold an answer, so that they no longer answer a question.

What a generator must learn to refuse is seldom far from its documents: they are about what is
asked, and leave out the one thing that is asked for. Such questions come from those that are
answered. Question and documents stay as somebody wrote them, which those changed in a word
(`clara.training.changed`) do not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random

from clara.evidence import content_of, sentences_holding, words_of
from clara.sentences import sentences


def redacted(question: str, documents: Sequence[str], answer: str) -> list[str] | None:
    """`documents` without the sentences in which `answer` stands, word for word.

    Args:
        question: what the answer is to.
        documents: as they are read, each a title and a line break before its text, or text alone.
        answer: of one stretch.
    Returns:
        As many as `documents`. None where that would not do: no document has the answer, as with
        yes and no; a title has it; the question itself does, so that they would no longer be about
        what is asked; or nothing would be left of one of them.
    """
    if content_of(answer) <= words_of(question):
        return None
    found = [_without(document, answer) for document in documents]
    kept = [one for one in found if one is not None]
    whole = len(kept) == len(documents)
    return kept if whole and kept != list(documents) else None


def thinned(document: str, answer: str, random: Random) -> str | None:
    """`document` without one or two sentences that do not hold `answer`; None where it has none
    to spare, or does not hold it word for word in its text."""
    title, text = _parted(document)
    needed = _holding(text, answer)
    spare = [at for at in range(len(sentences(text))) if at not in needed]
    if not needed or not spare:
        return None
    gone = random.sample(spare, min(len(spare), random.choice((1, 1, 2))))
    return title + _less(text, gone)


def _without(document: str, answer: str) -> str | None:
    title, text = _parted(document)
    if _holding(title, answer):
        return None
    kept = _less(text, _holding(text, answer))
    return title + kept if kept else None


def _parted(document: str) -> tuple[str, str]:
    """Title, with the line break behind it, and text; no title where there is one line."""
    first, line, rest = document.partition("\n")
    return (first + line, rest) if line else ("", first)


def _holding(text: str, answer: str) -> set[int]:
    """Which sentences an answer stands in, word for word."""
    runs = sentences_holding(text, sentences(text), answer)
    return {at for first, last in runs for at in range(first, last + 1)}


def _less(text: str, gone: Collection[int]) -> str:
    starts = [span.start for span in sentences(text)]
    pieces = zip(starts, [*starts[1:], len(text)], strict=True)
    return "".join(text[a:b] for at, (a, b) in enumerate(pieces) if at not in gone).rstrip()
