"""What a text must be to be stored: one in a request is refused, one in a file is cleaned.

Needs nothing but the standard library, since the API imports it.
"""

from __future__ import annotations

import re

from clara.errors import EmptyText, InvalidText, TextTooLong

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters (category Cc) except tab and line ends, and halves of surrogate pairs."""
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def check_text(text: str, *, field: str, max_chars: int) -> str:
    """Refuse a text that cannot be stored or says nothing; never change one.

    Args:
        text: as it came in a request.
        field: the input it came from, as the caller named it.
        max_chars: longest text allowed, in code points.
    Returns:
        The same text.
    Raises:
        TextTooLong: over `max_chars`.
        InvalidText: a control character other than tab, newline and carriage return, or half of
            a surrogate pair.
        EmptyText: only white space.
    """
    check_length(text, field=field, max_chars=max_chars)
    check_characters(text, field=field)
    if not text or text.isspace():
        raise EmptyText(
            f"{field} holds no text, only white space" if text else f"{field} is empty",
            field=field,
            remedy="Give a text of at least one visible character.",
        )
    return text


def check_length(text: str, *, field: str, max_chars: int) -> None:
    """Raise TextTooLong for more than `max_chars` code points."""
    if len(text) > max_chars:
        raise TextTooLong(
            f"{field} has {len(text):,} characters; the limit is {max_chars:,}",
            field=field,
            limit=max_chars,
            remedy="Split it into several shorter ones.",
        )


def check_characters(text: str, *, field: str) -> None:
    """Raise InvalidText, naming code point and position, for a character that cannot be stored."""
    found = _FORBIDDEN.search(text)
    if found is None:
        return
    point = ord(found[0])
    kind = "half of a surrogate pair" if point >= 0xD800 else "the control character"
    raise InvalidText(
        f"{printable(field)} has {kind} U+{point:04X} at position {found.start()}, counted from 0",
        field=printable(field),
        remedy="Remove it; the only control characters allowed are tab and line ends.",
    )


def clean_text(text: str) -> str:
    r"""Make text out of a file storable: nobody can remove a control character from a PDF.

    Line ends of every kind, form feeds among them, become `\n`; other control characters and
    single surrogates go; pairs of surrogates become the character they stand for. Nothing is
    normalised: characters stay as their author wrote them.
    """
    text = _LINE_ENDS.sub("\n", text)
    if _SURROGATES.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return _FORBIDDEN.sub("", text)


def printable(name: str) -> str:
    r"""A name fit for a message: what does not print is written as an escape, such as `\x00`."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
