"""Questions that ask for more than their documents say: a condition or an attribute is added.

"How much is the coat?" is answered, "How much is the coat in winter?" is not, where nothing speaks
of winters. Of all ways in which people ask what a text does not answer (arXiv:1806.03822, table 1)
it is the one that looks most like an answered question, since every other word is there. What is
added comes from other questions of the same files, in the words of those who wrote them; or from a
passage that stands beside those that answer and speaks of something else. Then every word is there,
and still nobody says what the coat costs in winter where only boots are said to be worn in winter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from clara.evidence import content_of, words_of, worth

LONGEST = 6
"""Words of a condition."""

MOST_TOLD = 4
"""Words with content in one."""

TRIES = 30
"""What is drawn before a question is given up: most of it is foreign to most documents."""

MOST_SHARED = 0.5
"""Of the words with content in a question, the part that a passage about something else may have.
One with more may well answer what is made with its own words."""

_CLAUSE = re.compile(r"[.,;:()\n]+")
_OPENS = "in|for|during|on|at|with|after|before|without|from|by|under|among|between|against"
_CONDITION = re.compile(rf"(?<=\w )(?:{_OPENS}) (?:[\w'’.-]+ ){{0,4}}[\w'’.-]*\w\Z", re.I)
_ASKS = "what|which|who|whom|whose|when|where|why|how"
_STATES = "is|are|was|were|be|do|does|did|about|called"
_NO_CONDITION = re.compile(
    rf"\b(?:{_ASKS}|{_STATES})\b|\b(?:of|to|and|the|document|passage|text|story|article)\Z", re.I
)
_ATTRIBUTE = re.compile(r"\b(?:the|an?) ([a-z]{4,}) ([a-z]+)\b")
_BEFORE = re.compile(r"\b(?:the|an?|his|her|its|their) (?=([A-Za-z]{4,}))")
_SAYS_LITTLE = frozenset(
    {
        *("main", "total", "full", "first", "last", "initial", "final", "actual", "original"),
        *("current", "common", "general", "specific", "exact", "overall", "entire", "whole"),
        *("same", "other", "early", "late", "official", "average", "approximate", "certain"),
        *("various", "great", "best", "most", "many", "more", "major", "minor", "primary"),
        *("important", "second", "third"),
    }
)
"""Attributes that change no answer, or hardly."""


@dataclass(frozen=True)
class Additions:
    """What questions can be made narrower with."""

    conditions: tuple[str, ...]
    """ "in 1928", "for her husband"; from a preposition on."""
    attributes: tuple[str, ...]
    """ "written", "northwest"; single small words that stand before another one."""


def additions(questions: Iterable[str]) -> Additions:
    """All that some questions end with, and what they say of things.

    Conditions come only from questions with their mark: others seldom end where they seem to.
    """
    asked = list(questions)
    ends = (found for q in asked if q.rstrip().endswith("?") and (found := _condition(q)))
    return Additions(tuple(ends), tuple(word for q in asked for word in _attributes(q)))


def narrowed(
    question: str, documents: Sequence[str], found: Additions, random: Random
) -> str | None:
    """`question` with a condition at its end, or an attribute before one of its things.

    Nothing of what is added stands in the documents or in the question. None where nothing fits.
    """
    held = words_of("\n".join([question, *documents]))
    at = [match.end() for match in _BEFORE.finditer(question) if _is_thing(match[1])]
    if found.attributes and at and (not found.conditions or random.random() < 0.5):
        added = _foreign(found.attributes, held, random)
        place = random.choice(at)
        return added and f"{question[:place]}{added} {question[place:]}"
    added = _foreign(found.conditions, held, random) if found.conditions else None
    if added is None:
        return None
    asked = question.rstrip(" ?")
    small = added.lower() if question == question.lower() else added
    return f"{asked} {small}{'?' if question.rstrip().endswith('?') else ''}"


def mixed(
    question: str, documents: Sequence[str], others: Sequence[str], random: Random
) -> tuple[str, str] | None:
    """`question` made narrower with what another passage says, and that passage.

    Args:
        question: answered by the documents.
        documents: what is added does not stand in them.
        others: passages that do not answer it; one is drawn of those that share few of its words.
        random: what it is drawn with.
    Returns:
        None where none is far enough from the question, or where nothing of it fits.
    """
    asked = content_of(question)
    far = [text for text in others if len(asked & words_of(text)) <= MOST_SHARED * len(asked)]
    if not far:
        return None
    other = random.choice(far)
    found = narrowed(question, documents, _said(other), random)
    return (found, other) if found else None


def _said(document: str) -> Additions:
    """What its clauses end with, and what they say of things."""
    clauses = _CLAUSE.split(document)
    ends = (found for clause in clauses if (found := _condition(clause)))
    return Additions(tuple(ends), tuple(word for clause in clauses for word in _attributes(clause)))


def _foreign(some: Sequence[str], held: frozenset[str], random: Random) -> str | None:
    """One whose words with content are all new."""
    for _ in range(TRIES):
        drawn = random.choice(some)
        if not content_of(drawn) & held:
            return drawn
    return None


def _condition(question: str) -> str | None:
    match = _CONDITION.search(question.rstrip(" ?"))
    if match is None:
        return None
    # from the last preposition on: "in the year after the war" says "after the war"
    opens = list(re.finditer(rf"\b(?:{_OPENS}) ", match[0], re.I))
    found = match[0][opens[-1].start() :]
    told = len(content_of(found))
    short = len(found.split()) <= LONGEST and 1 <= told <= MOST_TOLD
    return found if short and not _NO_CONDITION.search(found) else None


def _attributes(question: str) -> Iterator[str]:
    for match in _ATTRIBUTE.finditer(question):
        word, thing = match[1], match[2]
        says_nothing = word in _SAYS_LITTLE or word.endswith("ly")
        if not says_nothing and _is_thing(word) and _is_thing(thing):
            yield word


def _is_thing(word: str) -> bool:
    """Whether a word has content."""
    return word.lower() not in _SAYS_LITTLE and min(map(worth, words_of(word)), default=0) >= 1
