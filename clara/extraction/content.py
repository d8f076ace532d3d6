"""What every reader hands back, and what all of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from clara.errors import ClaraError, DamagedFile, TextTooLong
from clara.texts import clean_text, printable

_LXML_NO_MEMORY = 2
"""Code of the XMLSyntaxError that lxml raises where the memory is at fault (ERR_NO_MEMORY)."""


class Content(NamedTuple):
    """One file as its reader understood it; an empty title means that it names none."""

    title: str
    text: str


class Element(Protocol):
    """What our readers use of an lxml element, which comes without types."""

    tag: str
    text: str | None
    tail: str | None

    def __iter__(self) -> Iterator[Element]:
        """Its children."""

    def insert(self, position: int, child: Element) -> None:
        """Put or move an element here."""

    def find(self, tag: str) -> Element | None:
        """The first child of a kind."""

    def xpath(self, path: str) -> list[Element]:
        """Elements found from here."""

    def text_content(self) -> str:
        """All text inside; HTML only."""

    def drop_tree(self) -> None:
        """Take it out and leave the text behind it; HTML only."""


@contextmanager
def parsing(name: str, kind: str, *, place: str = "") -> Iterator[None]:
    """Turn whatever a parser raises over a broken file into DamagedFile.

    Parsers promise no set of exceptions for broken input. What is not the file's fault passes:
    our own errors, too little memory, a parser that is not installed.
    """
    try:
        yield
    except (ClaraError, MemoryError, ImportError):
        raise
    except Exception as error:
        if getattr(error, "code", None) == _LXML_NO_MEMORY:
            raise MemoryError from error
        reason = printable(str(error).strip().rstrip(".") or type(error).__name__)
        raise DamagedFile(
            f"{name} cannot be read as {kind}{place}: {reason.splitlines()[0][:300]}",
            field=name,
            remedy="Open it in the program that made it and save it again.",
        ) from error


def gather(name: str, parts: Iterable[str], *, max_chars: int, separator: str = "\n\n") -> str:
    """Clean, strip and join parts, without the blank ones.

    Stops at the part that passes `max_chars` (code points, separators included), so that a file
    far over the limit costs no more than one at the limit.

    Raises:
        TextTooLong: more than `max_chars`.
    """
    kept: list[str] = []
    length = -len(separator)
    for part in parts:
        text = clean_text(part).strip()
        if not text:
            continue
        kept.append(text)
        length += len(separator) + len(text)
        if length > max_chars:
            raise TextTooLong(
                f"{name} has more than {max_chars:,} characters of text",
                field=name,
                limit=max_chars,
                remedy="Split it into several shorter files.",
            )
    return separator.join(kept)
