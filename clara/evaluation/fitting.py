"""Texts that are too long for the compressor, cut where a token ends and counted."""

from __future__ import annotations

from collections.abc import Iterable

from clara.model.tokens import Tokens


def fit(tokens: Tokens, texts: Iterable[str]) -> dict[str, str]:
    """Every different text with what is read of it: all, or as many tokens as one pass takes.

    A served document is split into passages that fit; a data set's passages are what they are,
    so here the end is lost. Texts that were cut differ from their key.

    Returns:
        Text as given -> text to read.
    """
    different = list(dict.fromkeys(texts))
    counts = tokens.count(different)
    return {
        text: text if count <= tokens.doc_max_length else cut(tokens, text, tokens.doc_max_length)
        for text, count in zip(different, counts, strict=True)
    }


def cut(tokens: Tokens, text: str, limit: int) -> str:
    """The longest beginning of `text` that ends with a token and counts at most `limit` tokens.

    A beginning may have more tokens than it had within the whole, or end inside a character, so
    it is counted again.
    """
    plain = tokens.prompts.plain(text.strip())
    found = tokens.tokenizer(
        plain, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    ends = [end for _, end in found["offset_mapping"]]
    for keep in range(min(limit, len(ends)), 0, -1):
        beginning = plain[: ends[keep - 1]]
        if tokens.count([beginning])[0] <= limit:
            return beginning
    return ""
