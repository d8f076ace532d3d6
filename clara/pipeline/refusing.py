"""What was found may be beside the question: then nothing of it is read, and no model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clara.mentions import faintest_mention
from clara.nearness import NOTHING_IS_FAR, is_near
from clara.pipeline.asking import Answering, Asked
from clara.pipeline.considered import Considered
from clara.pipeline.reading import reading
from clara.types import Fate
from clara.wording import NOT_ANSWERED, NOT_MENTIONED


def may_refuse(asked: Asked, answering: Answering) -> bool:
    """Whether what is found may be too far from the question; a search shows it all the same."""
    return not asked.search_only and answering.limits.min_cosine > NOTHING_IS_FAR


def refused(
    asked: Asked, considered: Sequence[Considered], answering: Answering
) -> tuple[list[Considered], str | None]:
    """The same candidates, none of them to be read where they are beside the question.

    Also why, where a name is what they lack, or they are about the question and do not answer it.
    """
    if _too_far(asked, considered, answering):
        return [_unread(one) for one in considered], None
    name = _not_mentioned(asked, considered, answering)
    if name is not None:
        return [_unread(one) for one in considered], NOT_MENTIONED.format(name=name)
    if _unanswered(asked, considered, answering):
        return [_unread(one) for one in considered], NOT_ANSWERED
    return list(considered), None


def _too_far(asked: Asked, considered: Sequence[Considered], answering: Answering) -> bool:
    if not may_refuse(asked, answering):
        return False
    cosines = [one.cosine for one in considered if one.cosine is not None]
    return not is_near(asked.text, map(_text, considered), cosines, answering.limits.min_cosine)


def _not_mentioned(
    asked: Asked, considered: Sequence[Considered], answering: Answering
) -> str | None:
    """A name of the question that is foreign to what was found."""
    least, encoder = answering.limits.min_mention, answering.encoder
    if asked.search_only or least <= NOTHING_IS_FAR or not encoder.shows_tokens:
        return None
    read = _read(considered)
    if not read:
        return None
    faintest = faintest_mention(asked.text, read, encoder, map(_text, considered))
    return faintest.name if faintest is not None and faintest.cosine < least else None


def _unanswered(asked: Asked, considered: Sequence[Considered], answering: Answering) -> bool:
    read = _read(considered)
    if asked.search_only or not read:
        return False
    least = answering.limits.min_answerability
    return answering.encoder.unanswered(asked.text, read, least)


def _read(considered: Sequence[Considered]) -> list[str]:
    return [_text(one) for one in considered if one.fate is Fate.READ]


def _text(one: Considered) -> str:
    return reading(one.read.title, one.read.text)


def _unread(one: Considered) -> Considered:
    return replace(one, fate=Fate.BELOW_MIN_SCORE) if one.fate is Fate.READ else one
