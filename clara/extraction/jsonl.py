"""JSON lines, one document a line, plain or gzipped: `{"_id", "title", "text", "metadata"}`."""

from __future__ import annotations

import codecs
import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from clara.errors import DamagedFile, InvalidInput, InvalidText, TextTooLong
from clara.json_lines import decode, open_lines, type_name
from clara.texts import check_characters, check_text, printable
from clara.types import SourceDocument

_BYTES_PER_CHARACTER = 12
"""Most bytes JSON takes for one character: an escaped surrogate pair."""
_BYTES_BESIDES_TEXT = 2**20
"""Room in a line for everything but the text."""


def read_jsonl(path: Path, *, max_chars: int) -> Iterator[SourceDocument]:
    """Read a .jsonl or .jsonl.gz file line by line, never all at once.

    `_id` (becomes `external_id`) and `text` are needed, `title` and `metadata` may be left out,
    other keys are passed over, and so are blank lines. The first fault ends the reading.

    Args:
        path: the file.
        max_chars: longest text allowed, in code points.
    Yields:
        A document for each line; its `source` is the path as given.
    Raises:
        InvalidInput: with `path:line` in message and field, or one of these kinds of it:
        UnsupportedFile: another suffix.
        DamagedFile: gzip that is cut short or altered.
        TextTooLong, InvalidText, EmptyText: see `clara.texts.check_text`.
    """
    check_characters(str(path), field=str(path))
    longest = max_chars * _BYTES_PER_CHARACTER + _BYTES_BESIDES_TEXT
    for number, line in _lines(path, longest):
        if not line.isspace():
            where = f"{path}:{number}"
            yield _document(_record(line, where), where, source=str(path), max_chars=max_chars)


def _lines(path: Path, longest: int) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with open_lines(path) as file:
            while line := file.readline(longest + 1):
                number += 1
                if len(line) > longest:
                    raise TextTooLong(
                        f"{path}:{number} is longer than {longest:,} bytes",
                        field=f"{path}:{number}",
                        limit=longest,
                        remedy="Write one document a line, and split long ones.",
                    )
                yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedFile(
            f"{path}:{number + 1} cannot be unpacked: {error}",
            field=f"{path}:{number + 1}",
            remedy="Copy or download the file again; `gzip -t` checks it.",
        ) from error
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}",
            field=str(path),
            remedy="Check that the file exists and may be read.",
        ) from error


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = decode(line.decode())
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"{where} is not UTF-8: byte 0x{line[error.start]:02X} at offset {error.start}",
            field=where,
            remedy="Write the file in UTF-8.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{where} is not JSON: {error}", field=where, remedy="Write one JSON object a line."
        ) from error
    if not isinstance(record, dict):
        raise InvalidInput(
            f"{where} is {type_name(record)}, not an object",
            field=where,
            remedy='Write each line as {"_id": "...", "title": "...", "text": "..."}.',
        )
    return record


def _document(record: dict[str, Any], where: str, *, source: str, max_chars: int) -> SourceDocument:
    external_id = _string(record, "_id", where)
    if not external_id.strip():
        _refuse(f"{where}: _id", "is empty", "Give each document a name of its own.")
    text = _string(record, "text", where)
    return SourceDocument(
        text=check_text(text, field=f"{where}: text", max_chars=max_chars),
        title=_string(record, "title", where) if "title" in record else "",
        external_id=external_id,
        source=source,
        metadata=_metadata(record.get("metadata", {}), f"{where}: metadata"),
    )


def _string(record: dict[str, Any], key: str, where: str) -> str:
    field = f"{where}: {key}"
    if key not in record:
        _refuse(field, "is missing", f'Give each line a "{key}".')
    value = record[key]
    if not isinstance(value, str):
        _refuse(field, f"is {type_name(value)}, not a string", "Write it in quotes.")
    if key != "text":  # that one is checked for more than its characters
        check_characters(value, field=field)
    return value


def _metadata(value: object, field: str) -> dict[str, str | int | float | bool]:
    if not isinstance(value, dict):
        _refuse(
            field,
            f"is {type_name(value)}, not an object",
            "Write it as an object, or leave it out.",
        )
    for key, entry in value.items():
        check_characters(key, field=f"{field}: {key}")
        if not isinstance(entry, str | int | float | bool):
            remedy = "Metadata holds strings, numbers, true and false."
            _refuse(printable(f"{field}: {key}"), f"is {type_name(entry)}", remedy)
        if isinstance(entry, float) and not math.isfinite(entry):
            _refuse(printable(f"{field}: {key}"), "is too large a number", "Write a smaller one.")
        if isinstance(entry, str):
            check_characters(entry, field=f"{field}: {key}")
    return value


def _refuse(field: str, what: str, remedy: str) -> NoReturn:
    raise InvalidInput(f"{field} {what}", field=field, remedy=remedy)
