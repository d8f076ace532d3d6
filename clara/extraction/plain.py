"""Plain text and Markdown: decoding, and the first heading."""

from __future__ import annotations

import codecs
import re
from typing import NoReturn

from clara.errors import InvalidText
from clara.extraction.content import Content
from clara.texts import clean_text

_UNICODE_MARKS = (
    # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_UNDERLINE = re.compile(r" {0,3}=+[ \t]*$")


def decode(name: str, data: bytes) -> str:
    """UTF-8, with or without its mark; UTF-16 and UTF-32 where a byte-order mark says so.

    Raises:
        InvalidText: other bytes; names the first that does not fit, counted from 0.
    """
    encoding = next((codec for mark, codec in _UNICODE_MARKS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and data.count(0) * 4 > len(data):
        # ASCII in UTF-16 is half zero bytes, and valid UTF-8
        _refuse(name, data, data.index(0), "UTF-8", "UTF-16LE")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        _refuse(name, data, error.start, encoding.upper(), "WINDOWS-1252")


def read_plain(name: str, data: bytes, max_chars: int) -> Content:  # noqa: ARG001
    """A text as it is, without a title."""
    return Content("", decode(name, data))


def read_markdown(name: str, data: bytes, max_chars: int) -> Content:  # noqa: ARG001
    """Markdown as its author wrote it; its first heading is the title."""
    text = decode(name, data)
    return Content(_first_heading(clean_text(text)), text)


def _first_heading(text: str) -> str:
    """Of the form `# Heading`, or underlined with `=`; not inside fenced code or front matter."""
    if text.startswith("---\n"):
        front, end, rest = text.partition("\n---\n")
        text = rest if end else front
    fence = above = ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) else fence
        elif mark:
            fence = mark[1]
        elif heading := _heading(line):
            return heading
        elif above and _UNDERLINE.match(line):
            return above
        above = line.strip()
    return ""


def _heading(line: str) -> str:
    if line.startswith((" " * 4, "\t")) or not line.lstrip().startswith("#"):
        return ""
    words = line.split()
    if words[-1].strip("#") == "":  # `## Heading ##` may be closed
        words[1:] = words[1:-1]
    marks, *title = words
    return " ".join(title) if marks.strip("#") == "" and len(marks) <= 6 else ""


def _refuse(name: str, data: bytes, offset: int, encoding: str, likely: str) -> NoReturn:
    raise InvalidText(
        f"{name} is not {encoding} text: byte 0x{data[offset]:02X} at offset {offset}",
        field=name,
        remedy=f"Save it as UTF-8, such as with `iconv -f {likely} -t UTF-8`.",
    )
