"""Names in a question that no passage mentions: asked of something else than what was found.

The opening hours of the shop in Ghent are near to a question about a shop in Vienna, and look like
its answer. So a name must stand in a passage, or something must stand there that a sentence
encoder, which reads each token in its sentence, holds for nearly the same: "Britain" for "UK".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from re import Match
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clara.evidence import WORD, words_of, worth

MIN_MENTION = 0.5
"""Of the default sentence encoder's tokens, measured on training questions with and without the
name that their passages have (`scripts/bench_refusals.py`)."""

SENTENCE_END = re.compile(r"[.!?:;]\s*[\"'”’)]*\s*\Z")


@dataclass(frozen=True)
class TokenStates:
    """A text as an encoder reads it, token by token."""

    states: NDArray[np.float32]
    """(tokens, dimension), each of length 1."""
    spans: Sequence[tuple[int, int]]
    """Where each token stands in the text; nowhere, (0, 0), where the encoder added it."""

    def within(self, start: int, end: int) -> NDArray[np.float32]:
        """States of the tokens between two places of the text; none where it was cut before."""
        at = [i for i, (first, last) in enumerate(self.spans) if first < end and last > start]
        return self.states[at]


@runtime_checkable
class TokenEncoder(Protocol):
    """An encoder that shows the state of every token."""

    def token_states(self, texts: Sequence[str]) -> list[TokenStates]:
        """Of each text, in their order."""
        ...


@dataclass(frozen=True)
class Mention:
    """A name that stands in no passage, and what comes nearest to it there."""

    name: str
    cosine: float
    """Of the name's tokens with those of the passage that is best, each with its best, on average.
    """


def faintest_mention(
    question: str, read: Sequence[str], encoder: TokenEncoder, found: Iterable[str] = ()
) -> Mention | None:
    """Of the names in a question that no passage has, the one that is least mentioned.

    None where passages have all of them; the encoder is not asked then. A name of which others
    speak is often left out by the passage that answers: a handbook seldom says whose it is.

    Args:
        question: any text.
        read: passages that would be read for it, one or more.
        encoder: of tokens.
        found: passages that were found besides.
    """
    held = words_of("\n".join([*read, *found]))
    missing = [name for name in names_of(question) if not words_of(name[0]) <= held]
    if not missing:
        return None
    asked, *states = encoder.token_states([question, *read])
    mentions = (
        Mention(name[0], _best(asked.within(name.start(), name.end()), states)) for name in missing
    )
    return min(mentions, key=lambda one: one.cosine)


def names_of(question: str) -> Iterator[Match[str]]:
    """Words with content that begin with a capital, the first of each sentence aside.

    A question that has no small letter tells nothing by its capitals.
    """
    if question == question.upper():
        return
    for match in WORD.finditer(question):
        before = question[: match.start()]
        first = not WORD.search(before) or SENTENCE_END.search(before)
        told = max(map(worth, words_of(match[0])), default=0)
        if match[0][0].isupper() and not first and told >= 1:
            yield match


def _best(tokens: NDArray[np.float32], read: Sequence[TokenStates]) -> float:
    if not len(tokens):
        return 1.0  # cut off: nothing is known of it
    return max(float((tokens @ text.states.T).max(axis=1).mean()) for text in read)
