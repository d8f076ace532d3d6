"""Document text -> passages that a compressor reads whole: nothing is cut off, nothing lost."""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from clara.errors import InvalidCheckpoint, ModelMissing
from clara.sentences import CLOSERS, FULL_WIDTH, NEWLINE, STOPS, has_blank_line, sentences
from clara.types import PassageSpan, Span

if TYPE_CHECKING:
    from tokenizers import Tokenizer

STRETCH = 64_000
"""Characters tokenised at a time while planning; 3.5 MB at once took 580 MB of memory, not 100."""

SCRAP = 0.25
"""Part of the limit below which a passage is filled up from a sentence that is cut anyway."""

PARAGRAPH = 0.15
"""How far from its size, in parts of the limit, a passage may be to end where a paragraph does."""

CUT = re.compile(
    r"(?P<line>\S(?=[^\S\n]*\n))"
    rf"|(?P<stop>[{STOPS}][{CLOSERS}]{{0,3}}(?=\s)|[{FULL_WIDTH}])"
    rf"|(?P<clause>[;:–—][{CLOSERS}]{{0,3}}(?=\s)|[；：—])"
    rf"|(?P<comma>[,)\]}}][{CLOSERS}]{{0,3}}(?=\s)|[，、）」』】])"
    r"|(?P<space>\S(?=\s))"
)
COST = {"line": 0.0, "stop": 0.0, "clause": 0.1, "comma": 0.2, "space": 0.4}
"""What it costs to cut a sentence there, as PARAGRAPH is counted."""

JOINER = "\u200d"
ATTACHED = re.compile(
    "[\u200c\u200d\uff9e\uff9f\u1160-\u11ff\ud7b0-\ud7fb\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
)
"""Joined to the character before, as marks are: Korean vowels and finals, skin tones, tags."""

FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
"""Two of them make one flag."""

INK = re.compile(r"\S")
SPACE = re.compile(r"\s")


class TokenCounter(Protocol):
    """What splitting needs of a tokenizer."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters `[start, end)` of each token of `text`, in order, without special tokens.

        Byte-level tokenizers may give several tokens the same characters.
        """
        ...


class FastTokenizer:
    """A `tokenizer.json` for counting; loads neither torch nor transformers.

    Takes the library's object over and never changes it after, so threads may share it. Special
    tokens written out in a text are plain text: "</s>" counts as its characters, not as one token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # the library's word for "as ordinary text"
        self._tokenizer = tokenizer

    @classmethod
    def from_folder(cls, path: Path) -> FastTokenizer:
        """The tokenizer of a model's folder.

        Raises:
            ModelMissing: the folder holds no tokenizer.json.
            InvalidCheckpoint: the file is not one the library reads.
        """
        file = path / "tokenizer.json"
        if not file.is_file():
            raise ModelMissing(f"no tokenizer.json in {path}", field=str(file))
        from tokenizers import Tokenizer  # the API plans with this module, and loads no model

        try:
            return cls(Tokenizer.from_file(str(file)))
        except Exception as error:  # the library raises nothing narrower
            raise InvalidCheckpoint(f"{file} is no tokenizer: {error}", field=str(file)) from error

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters `[start, end)` of each token, in code points."""
        return self._tokenizer.encode(text, add_special_tokens=False).offsets

    def count(self, text: str) -> int:
        """Tokens of `text`, without special ones."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))


def split(text: str, tokenizer: TokenCounter, *, max_tokens: int) -> list[PassageSpan]:
    """Cut a document into passages of at most `max_tokens` tokens, each tokenised alone.

    Passages end where sentences do, at a paragraph's end where one is close, and are about equally
    long. A sentence is cut only if it is over the limit alone: after punctuation, else at white
    space, else between characters people see as one. Every character but the white space between
    passages is in exactly one of them; text of nothing but white space has none.

    Raises:
        ValueError: max_tokens is below 1, or one character alone takes more.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; a passage needs at least 1")
    found = sentences(text)
    if not found:
        return []
    plan = _Plan(text, found, tokenizer, max_tokens)
    passages: list[PassageSpan] = []
    ink = INK.search(text)
    while ink:
        passages.append(plan.passage(ink.start()))
        ink = INK.search(text, passages[-1].end)
    return passages


class _Plan:
    """A document's sentences and tokens, counted once; gives one passage at a time.

    Counts in context are only a plan: a span alone may take more tokens than it takes inside the
    document, so every passage is counted again by itself before it is given out.
    """

    def __init__(
        self, text: str, found: list[Span], tokenizer: TokenCounter, max_tokens: int
    ) -> None:
        self.text = text
        self.tokenizer = tokenizer
        self.limit = max_tokens
        self.sentences = found
        self.stops = [sentence.end for sentence in found]
        self.ends: list[int] = []
        """Where each token of the document ends."""
        self.counted: dict[tuple[int, int], int] = {}
        for start, end in _stretches(found):
            offsets = tokenizer.offsets(text[start:end])
            self.ends.extend(start + token_end for _, token_end in offsets)
            self.counted[start, end] = len(offsets)
        self.ends.sort()
        self.totals = [bisect_right(self.ends, stop) for stop in self.stops]
        self.worth = list(_worth(text, found))

    def passage(self, start: int) -> PassageSpan:
        """The passage from `start`, a character that is not white space."""
        first = bisect_right(self.stops, start)
        done = bisect_right(self.ends, start)
        beyond = bisect_right(self.totals, done + self.limit, lo=first)
        if beyond == first and self.totals[first] - done <= 2 * self.limit:
            beyond += 1  # over the limit in context, perhaps not alone
        while beyond > first:
            last = self._last_sentence(done, first, beyond)
            if self._is_scrap(done, last):
                return self._part(start, self.stops[last + 1])
            tokens = self._count(start, self.stops[last])
            if tokens <= self.limit:
                return PassageSpan(start, self.stops[last], tokens)
            over = tokens - self.limit
            beyond = min(last, max(first + 1, bisect_right(self.totals, self.totals[last] - over)))
        return self._part(start, self.stops[first])

    def _last_sentence(self, done: int, first: int, beyond: int) -> int:
        """The sentence of `[first, beyond)` to end with, `done` tokens lying before.

        The fewest passages that hold what is left would each take `target` tokens; one of fewer
        than `least` would make another passage necessary.
        """
        left = self.totals[-1] - done
        passages = max(1, math.ceil(left / self.limit))
        least = left - (passages - 1) * self.limit
        if self.totals[beyond - 1] - done < least:
            passages += 1
        target = left / passages

        def misfit(i: int) -> tuple[bool, float]:
            tokens = self.totals[i] - done
            return tokens < least, abs(tokens - target) / self.limit - PARAGRAPH * self.worth[i]

        return min(range(first, beyond), key=misfit)

    def _is_scrap(self, done: int, last: int) -> bool:
        """Whether ending with `last` leaves a scrap before a sentence that is cut anyway."""
        if last + 1 == len(self.stops) or self.totals[last] - done >= SCRAP * self.limit:
            return False
        planned = self.totals[last + 1] - self.totals[last]
        after = self.sentences[last + 1]
        return planned > 2 * self.limit or (
            planned > self.limit and self._count(after.start, after.end) > self.limit
        )

    def _part(self, start: int, stop: int) -> PassageSpan:
        """The passage from `start` that ends inside the sentence up to `stop`."""
        limit, before = self.limit, stop
        while before - start > 1:
            end = self._cut(start, before, limit)
            tokens = self._count(start, end)
            if tokens <= self.limit:
                return PassageSpan(start, end, tokens)
            before = end if limit > 1 else start + (end - start) // 2 + 1
            limit = max(1, limit - (tokens - self.limit))
        tokens = self._count(start, start + 1)
        if tokens <= self.limit:
            return PassageSpan(start, start + 1, tokens)
        raise ValueError(
            f"max_tokens is {self.limit}; the character {self.text[start]!r} alone takes more"
        )

    def _cut(self, start: int, before: int, limit: int) -> int:
        """The best place before `before` to end a passage of `limit` tokens in context."""
        done = bisect_right(self.ends, start)
        left = self.totals[-1] - done
        target = left / max(1, math.ceil(left / limit))
        reach = min(self._reach(start, limit), before - 1)
        best, least, last = start, math.inf, start
        for match in CUT.finditer(self.text, start, reach + 1):
            if match.end() > reach or not _is_between(self.text, match.end()):
                continue
            last = match.end()
            tokens = bisect_right(self.ends, last, lo=done) - done
            misfit = abs(tokens - target) / limit + COST[match.lastgroup or "space"]
            if misfit < least:
                best, least = last, misfit
        word = INK.search(self.text, last, reach)
        if best > start and not (word and self._is_scrap_before(word.start(), done, last, limit)):
            return best
        goal = self._reach(start, math.ceil(target))
        return _inside(self.text, word.start() if word else start, min(goal, reach), reach)

    def _is_scrap_before(self, word: int, done: int, last: int, limit: int) -> bool:
        """Whether ending at `last` leaves a scrap before a word that is cut anyway."""
        if bisect_right(self.ends, last) - done >= SCRAP * limit:
            return False
        reach = self._reach(word, limit)
        return reach < len(self.text) and not SPACE.search(self.text, word, reach + 1)

    def _reach(self, start: int, limit: int) -> int:
        """End of the last token that `limit` tokens from `start` hold; past `start` at least."""
        done = bisect_right(self.ends, start)
        if done + limit >= len(self.ends):
            return len(self.text)
        over = bisect_left(self.ends, self.ends[done + limit], lo=done)
        return self.ends[over - 1] if over > done else start + 1

    def _count(self, start: int, end: int) -> int:
        """Tokens of a span by itself."""
        known = self.counted.get((start, end))
        return len(self.tokenizer.offsets(self.text[start:end])) if known is None else known


def _stretches(found: list[Span]) -> Iterator[tuple[int, int]]:
    """Whole sentences to tokenise together, one tokenization after the other."""
    begin = found[0].start
    for sentence, after in pairwise(found):
        if after.end - begin > STRETCH:
            yield begin, sentence.end
            begin = after.start
    yield begin, found[-1].end


def _worth(text: str, found: list[Span]) -> Iterator[int]:
    """How good a passage's end each sentence is: 1 ends a paragraph, -1 leads into the next."""
    opens = True
    for sentence, after in pairwise(found):
        closes = has_blank_line(text, sentence.end, after.start)
        last = text[sentence.end - 1]
        heads = opens and last not in STOPS + CLOSERS and sentence.end - sentence.start < 100
        newline = NEWLINE.search(text, sentence.end, after.start)
        yield -1 if newline and (heads or last in ":：") else int(closes)
        opens = closes
    yield 1


def _inside(text: str, start: int, goal: int, reach: int) -> int:
    """The place to cut a word, after `start` and at most `reach`, near `goal`.

    Between characters as people see them; between code points where a single one is too long.
    """
    goal = max(goal, start + 1)
    for place in chain(range(goal, start, -1), range(goal + 1, reach + 1)):
        if _is_between(text, place):
            return place
    return goal


def _is_between(text: str, place: int) -> bool:
    """Whether what people see as one character ends at `place`: the common cases of UAX 29."""
    before, after = text[place - 1], text[place]
    if after.isspace():
        return True
    if before == JOINER or ATTACHED.match(after) or unicodedata.category(after).startswith("M"):
        return False
    if before not in FLAG_LETTERS or after not in FLAG_LETTERS:
        return True
    run = text[max(0, place - 256) : place]
    return (len(run) - len(run.rstrip(FLAG_LETTERS))) % 2 == 0
