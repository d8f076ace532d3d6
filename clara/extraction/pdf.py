"""PDF: the text layer, page by page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, cast

from clara.errors import DamagedFile, EncryptedFile
from clara.extraction.content import Content, gather, parsing

if TYPE_CHECKING:
    from pypdf import PdfReader
    from pypdf.generic import DictionaryObject

_WORD = re.compile(r"[^\W\d_]+")
_BROKEN_WORD = re.compile(r"\b([^\W\d_]+)-\n([^\W\d_]+)")


def read_pdf(name: str, data: bytes, max_chars: int) -> Content:
    """Pages joined by a blank line; title from the document information."""
    with parsing(name, "PDF"):
        reader = _open(name, data)
        text = gather(name, _pages(name, reader), max_chars=max_chars)
        return Content(_title(reader), join_broken_words(text))


def join_broken_words(text: str) -> str:
    """Undo hyphenation at line ends, where the text itself shows that it is one.

    `compres-` / `sion` becomes `compression` only if that word stands whole elsewhere in the same
    text: without a dictionary nothing else tells it from `well-` / `known`. The rest stays as the
    page shows it.
    """
    words = {word.lower() for word in _WORD.findall(text)}

    def joined(found: re.Match[str]) -> str:
        word = found[1] + found[2]
        return word if found[2][0].islower() and word.lower() in words else found[0]

    return _BROKEN_WORD.sub(joined, text)


def _open(name: str, data: bytes) -> PdfReader:
    """A reader that can decrypt; an empty user password opens a file to everybody."""
    from pypdf import PasswordType, PdfReader

    remedy = "Remove the password and send the file again."
    try:
        reader = PdfReader(BytesIO(data))
    except NotImplementedError as error:
        raise EncryptedFile(
            f"{name} is protected in a way that cannot be opened here: {error}",
            field=name,
            remedy=remedy,
        ) from error
    if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise EncryptedFile(f"{name} needs a password", field=name, remedy=remedy)
    return reader


def _pages(name: str, reader: PdfReader) -> Iterator[str]:
    """The text of each page. A file cut short still opens, with pages missing: that is refused."""
    from pypdf.generic import is_null_or_none

    count = len(reader.pages)
    declared = cast("DictionaryObject", reader.root_object["/Pages"]).get("/Count")
    for number, page in enumerate(reader.pages, 1):
        with parsing(name, "PDF", place=f", page {number} of {count}"):
            if "/Contents" in page and is_null_or_none(page["/Contents"]):
                raise _incomplete(name, f"page {number} of {count} has lost its contents")
            text = page.extract_text()
        yield text
    if isinstance(declared, int) and count < declared:
        raise _incomplete(name, f"it has {count} of the {declared} pages it declares")


def _incomplete(name: str, what: str) -> DamagedFile:
    return DamagedFile(
        f"{name} is incomplete: {what}", field=name, remedy="Copy or download it again."
    )


def _title(reader: PdfReader) -> str:
    with suppress(Exception):  # a label: broken document information costs nobody the text
        return (reader.metadata and reader.metadata.title) or ""
    return ""
