"""One file to one document, and the files of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

from clara.errors import EmptyText, FileWithoutText, InvalidInput, UnsupportedFile
from clara.extraction.html import read_html
from clara.extraction.pdf import read_pdf
from clara.extraction.plain import read_markdown, read_plain
from clara.extraction.word import read_docx
from clara.texts import check_characters, check_length, clean_text, printable
from clara.types import SourceDocument

_READERS = {
    ".txt": read_plain,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".pdf": read_pdf,
    ".docx": read_docx,
}
SUFFIXES = tuple(_READERS)
"""Suffixes a reader exists for, in lower case."""
TEXT_SUFFIXES = frozenset({".txt", ".md", ".markdown"})
"""Those that are text already and need no parser."""
TITLE_CHARS = 300
"""Longest title taken from a file; a title is a label, the text itself is never cut."""


def extract(name: str, data: bytes, *, max_chars: int) -> SourceDocument:
    """Read one file of our own; see `extract_isolated` for files of strangers.

    Args:
        name: path or file name; its suffix says the kind. Becomes `external_id` and `source`.
        data: the file's bytes.
        max_chars: longest text allowed, in code points.
    Returns:
        The text, cleaned (`clara.texts.clean_text`), with the title the file gives itself, else
        the name without folders and suffix.
    Raises:
        UnsupportedFile: no reader for the suffix.
        DamagedFile: the reader cannot make sense of the bytes, or they unpack to too much.
        EncryptedFile: a password is needed.
        FileWithoutText: opens, but holds no text, such as a scan.
        EmptyText: a .txt or Markdown file of only white space.
        InvalidText: bytes that are not UTF-8, or a name with control characters.
        TextTooLong: more than `max_chars`.
    """
    check_characters(name, field=name)
    suffix = suffix_of(name)
    content = _READERS[suffix](name, data, max_chars)
    text = clean_text(content.text)
    check_length(text, field=name, max_chars=max_chars)
    if not text or text.isspace():
        _refuse_blank(name, suffix)
    title = " ".join(clean_text(content.title).split())[:TITLE_CHARS]
    return SourceDocument(text=text, title=title or _path(name).stem, external_id=name, source=name)


def suffix_of(name: str) -> str:
    """The suffix in lower case, of the kinds there is a reader for.

    Raises:
        UnsupportedFile: another suffix, or none.
    """
    suffix = _path(name).suffix.lower()
    if suffix not in _READERS:
        kind = f"{suffix} files" if suffix else "files without a suffix"
        raise UnsupportedFile(
            f"{printable(name)}: there is no reader for {printable(kind)}",
            field=printable(name),
            remedy=f"Convert it to one of {', '.join(SUFFIXES)}.",
        )
    return suffix


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Files to read: those given, and those of a supported kind inside the folders given.

    Inside a folder hidden files and folders are skipped and links to folders not followed.

    Returns:
        Each path once, sorted.
    Raises:
        UnsupportedFile: a file given by itself has no reader.
        InvalidInput: a path does not exist, or a folder cannot be listed.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found.update(_inside(path))
        elif path.exists():
            suffix_of(path.name)
            found.add(path)
        else:
            raise InvalidInput(
                f"{path} does not exist", field=str(path), remedy="Check the spelling of the path."
            )
    return sorted(found)


def _inside(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise InvalidInput(
            f"{error.filename} cannot be listed: {error.strerror}",
            field=str(error.filename),
            remedy="Make the folder readable, or leave it out.",
        ) from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            hidden = name.startswith(".")
            if not hidden and path.suffix.lower() in _READERS and path.is_file():
                yield path


def _path(name: str) -> PurePosixPath:
    """The name as a path, also one from Windows."""
    return PurePosixPath(name.replace("\\", "/"))


def _refuse_blank(name: str, suffix: str) -> NoReturn:
    if suffix in TEXT_SUFFIXES:
        raise EmptyText(
            f"{name} holds only white space", field=name, remedy="Leave it out, or fill it."
        )
    if suffix == ".pdf":
        raise FileWithoutText(
            f"{name} has no text layer: its pages are pictures or empty",
            field=name,
            remedy="Run text recognition (OCR) over it first, then send the result.",
        )
    raise FileWithoutText(f"{name} holds no text", field=name, remedy="Leave it out, or fill it.")
