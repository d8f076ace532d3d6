"""Ids of one answer, as they come -> pieces of its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Pieces:
    """Gives text as soon as it ends in a whole character; joined, the pieces are the answer.

    Args:
        decode: ids -> text, without special tokens.
        stripped: leave out the white space an answer begins with.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, stripped: bool = False) -> None:
        self._decode = decode
        self._told: list[int] = []
        self._held: list[int] = []
        self._strip = stripped

    def put(self, token: int) -> str:
        """Take the next id. Returns the text that is complete by it, often "" or one word."""
        self._held.append(token)
        return self._take(whole=False)

    def end(self) -> str:
        """What was held back; nothing comes after."""
        return self._take(whole=True)

    def _take(self, *, whole: bool) -> str:
        """Decode from the last told ids on, so that a tokenizer's leading space stays in place."""
        before = self._decode(self._told)
        piece = self._decode(self._told + self._held)[len(before) :]
        if not piece or (piece.endswith("\ufffd") and not whole):
            return ""
        self._told, self._held = self._held, []
        piece = piece.lstrip() if self._strip else piece
        self._strip = self._strip and not piece
        return piece
