"""What a model reads of a passage: its document's title on a line of its own, then its words.

The compressor, the sentence encoder and text mode all read the same string, and so do the
training records.
"""

from __future__ import annotations

from typing import Protocol

from clara.errors import InvalidInput
from clara.passages import TokenCounter, split
from clara.types import PassageSpan

TITLE_SHARE = 4
"""A title that takes more than one in this many of a passage's tokens is left out."""


class Tokenizer(TokenCounter, Protocol):
    """Counts and locates tokens, without special ones."""

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        ...


def reading(title: str, text: str) -> str:
    """The string a model reads for one passage."""
    return f"{title}\n{text}" if title else text


def shown_title(title: str, tokenizer: Tokenizer, *, max_tokens: int) -> str:
    """The title, or nothing where it would crowd out the passage."""
    title = " ".join(title.split())
    return title if tokenizer.count(title) * TITLE_SHARE <= max_tokens else ""


def split_document(
    title: str, text: str, tokenizer: Tokenizer, *, max_tokens: int
) -> list[PassageSpan]:
    """Passages of a document; `tokens` counts what a model reads, the title included.

    Raises:
        InvalidInput: a single character does not fit in `max_tokens`.
    """
    title = shown_title(title, tokenizer, max_tokens=max_tokens)
    room = max_tokens - tokenizer.count(reading(title, "")) if title else max_tokens
    while room > 0:
        try:
            spans = split(text, tokenizer, max_tokens=room)
        except ValueError as error:
            raise InvalidInput(str(error), field="text", limit=max_tokens) from error
        read = [reading(title, text[span.start : span.end]) for span in spans]
        counted = [
            PassageSpan(span.start, span.end, tokenizer.count(string))
            for span, string in zip(spans, read, strict=True)
        ]
        # tokens may join across the line break, or, rarely, come apart
        over = max((span.tokens for span in counted), default=0) - max_tokens
        if over <= 0:
            return counted
        room -= over
    raise InvalidInput(
        "the text cannot be split into passages the model can read",
        field="text",
        limit=max_tokens,
        remedy="Use a checkpoint with a larger doc_max_length.",
    )
