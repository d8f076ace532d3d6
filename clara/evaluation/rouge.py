"""How much of one text another one says: words in common, and facts kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from clara.sentences import FUNCTION_WORDS, sentences

_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAME = re.compile(r"[^\W\d_](?:[\w.]*\w)?")


def rouge_n(found: str, wanted: str, n: int) -> float:
    """F1 of the two bags of runs of `n` words, in [0, 1]; Lin 2004, without stemming."""
    mine, gold = _runs(_words(found), n), _runs(_words(wanted), n)
    return _f1((mine & gold).total(), mine.total(), gold.total())


def rouge_l(found: str, wanted: str) -> float:
    """F1 of the longest common subsequence of words, in [0, 1]."""
    mine, gold = _words(found), _words(wanted)
    return _f1(longest_common(mine, gold), len(mine), len(gold))


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest sequence of words that both hold in order, with gaps."""
    row = [0] * (len(other) + 1)
    for word in one:
        corner = 0
        for at, same in enumerate(other, 1):
            above = row[at]
            row[at] = corner + 1 if word == same else max(above, row[at - 1])
            corner = above
    return row[-1]


def numbers_kept(found: str, wanted: str) -> float | None:
    """Share of the different numbers of `wanted` that `found` has too; None where it has none.

    Numbers are written in digits; commas inside them do not count.
    """
    return _share(numbers(found), numbers(wanted))


def names_kept(found: str, wanted: str) -> float | None:
    """Share of the different names of `wanted` that stand in `found`; None where it has none."""
    return _share(set(_NAME.findall(found)), names(wanted))


def facts_kept(found: str, wanted: str) -> float | None:
    """Share of the numbers and names of `wanted`, counted together, that `found` has too."""
    said = numbers(found) | set(_NAME.findall(found))
    return _share(said, numbers(wanted) | names(wanted))


def numbers(text: str) -> set[str]:
    """Numbers in digits, without commas."""
    return {number.replace(",", "") for number in _NUMBER.findall(text)}


def names(text: str) -> set[str]:
    """Capitalised words that do not begin a sentence, without small words such as `The`."""
    found: set[str] = set()
    for span in sentences(text):
        sentence = text[span.start : span.end]
        first = _WORD.search(sentence)
        inner = _NAME.finditer(sentence, first.end() if first else 0)
        found.update(match[0] for match in inner if match[0][0].isupper())
    return {name for name in found if name.lower() not in FUNCTION_WORDS}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _runs(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def _f1(common: int, mine: int, gold: int) -> float:
    return 2 * common / (mine + gold) if common else 0.0


def _share(found: set[str], wanted: set[str]) -> float | None:
    return len(found & wanted) / len(wanted) if wanted else None
