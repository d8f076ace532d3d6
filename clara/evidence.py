"""The sentence of a passage that an answer rests on, found afterwards from the words alone."""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Set

from clara.sentences import FUNCTION_WORDS, sentences
from clara.types import Span

MIN_SHARE = 0.25
"""Part of the weight of answer and question that a sentence must share to count as evidence."""

ANSWER_WEIGHT = 2.0
"""A word of the answer against one of the question."""

NUMBER_WEIGHT = 2.0
"""A number against a word: dates and amounts are seldom shared by chance."""

STOP_WEIGHT = 0.05
"""A word without content against one with."""

STOP_WORDS = FUNCTION_WORDS | {
    *("can", "cannot", "done", "let", "may", "might", "must", "s", "shall", "t", "th", "will"),
    *("according", "answer", "called", "etc", "false", "get", "got", "made", "make", "name"),
    *("named", "ok", "okay", "question", "said", "say", "says", "tell", "true", "yes"),
}

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, where every character counts as a word."""

LETTERS = rf"[^\W_{UNSPACED}]+"
WORD = re.compile(rf"\d+(?:[.,:]\d+)*|[{UNSPACED}]|{LETTERS}(?:['’]{LETTERS})*")
ENDING = re.compile(r"(?:ing|ed|es|s|e)\Z")
HIRAGANA = re.compile(r"[\u3040-\u309f]")
EDGES = "\"'“”„‘’«»()[]{}<>.,;:!?…。、，！？·*_- \t\n\r"


def find_evidence(passage: str, answer: str, question: str) -> Span | None:
    """The sentence of `passage` that best supports `answer`, or None where nothing does.

    First come sentences that hold the answer itself, as whole words in any case of letters; among
    several, the one closest to the question, then the earliest. Otherwise the sentence that shares
    most weight with answer and question: rare words and numbers weigh more than words the whole
    passage repeats, stop words next to nothing. It must share a word with content, and MIN_SHARE
    of all the weight. An answer of one stop word, such as "yes", is judged by overlap alone; one
    that runs over several sentences gives the span of them all.
    """
    spans = sentences(passage)
    held = [words_of(passage[span.start : span.end]) for span in spans]
    told, asked = words_of(answer), words_of(question)
    weights = _weights(held, told, asked)

    def shared(words: Set[str]) -> float:
        return math.fsum(weights[word] for word in words & weights.keys())

    runs = list(sentences_holding(passage, spans, answer))
    if runs:
        first, last = max(runs, key=lambda run: shared(asked & _union(held[run[0] : run[1] + 1])))
        return Span(spans[first].start, spans[last].end)
    best = min(range(len(spans)), key=lambda i: (-shared(held[i]), len(held[i])), default=None)
    if best is None or not any(worth(word) >= 1 for word in held[best] & weights.keys()):
        return None
    enough = MIN_SHARE * math.fsum(weights.values())
    return spans[best] if shared(held[best]) >= enough else None


def sentences_holding(passage: str, spans: list[Span], answer: str) -> Iterator[tuple[int, int]]:
    """First and last sentence of every place where an answer stands, as whole words in any case.

    Nothing is found of one without a word, or of one stop word alone, such as "yes".

    Args:
        passage: any text.
        spans: its sentences.
        answer: looked for without the marks around it, and with any white space in it.
    """
    starts, ends = [span.start for span in spans], [span.end for span in spans]
    for place in places(passage, answer):
        yield bisect_right(starts, place.start) - 1, bisect_left(ends, place.end)


def places(passage: str, answer: str) -> Iterator[Span]:
    """Every place where an answer stands, as whole words in any case; as `sentences_holding`."""
    answer = answer.strip(EDGES)
    if not WORD.search(answer) or answer.casefold() in STOP_WORDS:
        return
    before, after = (
        _guard(answer[0], r"(?<!\d[.,])(?<![^\W_])"),
        _guard(answer[-1], r"(?![^\W_]|[.,]\d)"),
    )
    literal = r"\s+".join(map(re.escape, answer.split()))
    for match in re.finditer(before + literal + after, passage, re.IGNORECASE):
        yield Span(match.start(), match.end())


def _guard(edge: str, whole: str) -> str:
    """`whole`, the rule for where a word may begin or end, if such a word is at the edge."""
    return whole if re.match(rf"[^\W{UNSPACED}]", edge) else ""


def _union(sets: list[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)


def _weights(held: list[frozenset[str]], told: Set[str], asked: Set[str]) -> dict[str, float]:
    """Weight of each word of answer and question: 1 for a plain one in at most one sentence."""
    counts = Counter(word for words in held for word in words)
    total = max(1, len(held))
    return {
        word: worth(word)
        * (ANSWER_WEIGHT if word in told else 1.0)
        * (math.log1p(total / max(1, counts[word])) / math.log1p(total))
        for word in told | asked
    }


def worth(word: str) -> float:
    """What a word is worth wherever it stands."""
    if word in STOP_WORDS or HIRAGANA.match(word):
        return STOP_WEIGHT
    return NUMBER_WEIGHT if word[0].isdigit() else 1.0


def words_of(text: str) -> frozenset[str]:
    """Words as they are compared: one form for each way of writing, common endings cut off."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return frozenset(map(_stem, WORD.findall(plain)))


def content_of(text: str) -> frozenset[str]:
    """Those of its words that have content, as `words_of` gives them."""
    return frozenset(word for word in words_of(text) if worth(word) >= 1)


def _stem(word: str) -> str:
    """Bring "signs", "signed" and "signing" together, and "1,234" and "1234"; no more than that."""
    word = re.sub(r"['’]s\Z", "", word)
    if word[0].isdigit():
        return word.replace(",", "")
    if len(word) < 5 or word in STOP_WORDS or not word.isascii():
        return word
    return ENDING.sub("", word)
