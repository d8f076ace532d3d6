"""Questions changed in one word, so that the documents which answered them no longer do.

Withheld documents teach a generator to refuse what is far from its documents. What they nearly
answer, the opening hours of a shop in another town, looks like any other question to it. So one
word that the documents have too is replaced by one of its kind that they do not have: a name by
a name close to it, a number by a number. The idea is arXiv:1707.07328's, which changes questions
so to add misleading sentences to their documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from re import Match

import torch
from torch import Tensor

from clara.evidence import WORD, words_of, worth
from clara.model.tokens import Tokens

NEAREST = 12
"""Words that one may be changed for."""

ALIKE = 0.62
"""Cosine from which two common words may well mean the same, as "largest" and "biggest" do; two
names never do."""

SHORTEST = 4
"""Letters of a common word; shorter ones are mostly pieces, and as many at the beginning in common
make two words forms of one."""

SYNONYMS = 3
"""Common words that lie nearest to one are passed over: what has its meaning is among them."""

TELLING = 6.0
"""How much more often a name or a number is changed than another word."""


@dataclass(frozen=True)
class Vocabulary:
    """Words that a base has one token for, and where they lie."""

    words: tuple[str, ...]
    vectors: Tensor
    """(words, width), of length 1, the mean embedding taken off."""
    found: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What was looked for so far."""

    def nearest(self, word: str) -> tuple[str, ...]:
        """Other words of a kind, nearest first; none for a word that is not among them."""
        if word not in self.found:
            self.found[word] = tuple(self._nearest(word))
        return self.found[word]

    def _nearest(self, word: str) -> list[str]:
        if word not in self.words:
            return []
        cosines = self.vectors @ self.vectors[self.words.index(word)]
        order = cosines.argsort(descending=True)[: 5 * NEAREST].tolist()
        name = word.istitle()
        near = [self.words[at] for at in order if name or float(cosines[at]) < ALIKE]
        passed = 0 if name else SYNONYMS
        return [other for other in near if _of_a_kind(word, other)][passed : passed + NEAREST]


def vocabulary(tokens: Tokens, embedding: Tensor) -> Vocabulary:
    """The base's words of letters alone, written small or with a capital.

    Args:
        tokens: of the base.
        embedding: (vocabulary, width).
    """
    pieces = ((i, tokens.decode([i])) for i in range(tokens.base_size))
    kept = {text[1:]: i for i, text in pieces if text.startswith(" ") and _is_word(text[1:])}
    rows = embedding.detach()[: tokens.base_size].float().cpu()
    own = rows[list(kept.values())] - rows.mean(dim=0)
    return Vocabulary(tuple(kept), torch.nn.functional.normalize(own, dim=1))


def changed(
    question: str, documents: Sequence[str], words: Vocabulary, random: Random
) -> str | None:
    """`question` with one word changed that `documents` have, for one that they do not have.

    None where no word of it can be changed. The first word stays: it says what is asked for.
    """
    held = words_of("\n".join(documents))
    found = [
        (match, others)
        for match in _told(question, held)
        if (others := [one for one in _others(match[0], words, random) if not held & words_of(one)])
    ]
    if not found:
        return None
    weights = [1.0 if match[0].islower() else TELLING for match, _ in found]
    ((match, others),) = random.choices(found, weights)
    return question[: match.start()] + random.choice(others) + question[match.end() :]


def _told(question: str, held: frozenset[str]) -> Iterator[Match[str]]:
    """Words with content that the documents have, the question's first aside."""
    for match in WORD.finditer(question):
        forms = words_of(match[0])
        if match.start() and forms <= held and max(map(worth, forms), default=0) >= 1:
            yield match


def _others(word: str, words: Vocabulary, random: Random) -> Sequence[str]:
    if not word.isdecimal():
        return words.nearest(word)
    low = 10 ** (len(word) - 1)
    drawn = {str(random.randrange(low, 10 * low)) for _ in range(NEAREST)}
    return sorted(drawn - {word})


def _is_word(text: str) -> bool:
    return text.isalpha() and len(text) >= SHORTEST and (text.islower() or text.istitle())


def _of_a_kind(word: str, other: str) -> bool:
    """Both names or both not, with content, and not two forms of one word."""
    if word.istitle() != other.istitle() or max(map(worth, words_of(other)), default=0) < 1:
        return False
    return word[:SHORTEST].casefold() != other[:SHORTEST].casefold()
