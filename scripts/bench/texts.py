"""Passages of a wanted length, cut out of a corpus; questions of the sample shop."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from clara.errors import InvalidDataset
from clara.model.tokens import Tokens
from clara.training.faults import Fault
from clara.training.lines import read_objects

SAMPLES = Path(__file__).parents[2] / "samples"
MOST_WORDS = 200_000
"""Read no more of a corpus: nothing here needs more."""


@dataclass
class Corpus:
    """A stream of words that begins again where it ends."""

    words: list[str]
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - lengths, no secrets
    _next: int = 0

    def take(self, count: int) -> list[str]:
        """The next `count` words."""
        found = [self.words[(self._next + i) % len(self.words)] for i in range(count)]
        self._next = (self._next + count) % len(self.words)
        return found

    def passages(self, count: int, words: tuple[int, int], tokens: Tokens) -> list[str]:
        """`count` passages of lengths spread evenly, none longer than the compressor takes."""
        least, most = words
        lengths = [round(least + (most - least) * (i + 0.5) / count) for i in range(count)]
        self.random.shuffle(lengths)
        return [cut(self.take(length), tokens.doc_max_length, tokens) for length in lengths]

    def long_passages(self, count: int, length: int, tokens: Tokens) -> list[str]:
        """`count` passages of `length` tokens, or as near below as words allow."""
        return [cut(self.take(length), length, tokens) for _ in range(count)]


def cut(words: list[str], limit: int, tokens: Tokens) -> str:
    """The longest beginning of at most `limit` tokens, at least a word."""

    def length(count: int) -> int:
        return tokens.count([" ".join(words[:count])])[0]

    fitting = bisect_right(range(1, len(words) + 1), limit, key=length)
    return " ".join(words[: max(fitting, 1)])


def corpus(path: Path | None, *, seed: int) -> Corpus:
    """The words of a file of JSON lines with a `text` each, or of the sample shop.

    Raises:
        InvalidDataset: a line without `text`, or no text at all.
        UnsupportedFile: neither .jsonl nor .jsonl.gz.
    """
    source = path or SAMPLES / "catalogue.jsonl"
    words: list[str] = []
    for text in _texts(source):
        words += text.split()
        if len(words) > MOST_WORDS:
            break
    if not words:
        raise InvalidDataset(f"{source} holds no text", field=str(source))
    return Corpus(words, Random(seed))  # noqa: S311 - lengths, no secrets


def questions(count: int) -> list[str]:
    """Questions of different lengths; the sample shop's, over and over."""
    lines = (SAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [str(json.loads(line)["question"]) for line in lines]
    return [asked[i % len(asked)] for i in range(count)]


def _texts(path: Path) -> Iterator[str]:
    for entry in read_objects(path):
        if isinstance(entry, Fault):
            raise InvalidDataset(f"{path}, {entry}", field=str(path))
        line, record = entry
        text = record.get("text")
        if not isinstance(text, str):
            raise InvalidDataset(
                f"line {line} of {path} has no text",
                field=str(path),
                remedy='Write one object a line: {"text": "..."}',
            )
        yield text
