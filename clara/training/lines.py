"""Files of JSON lines, plain or gzipped: every line comes out, as an object or as its fault."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from clara.errors import InvalidInput
from clara.json_lines import decode, open_lines, type_name
from clara.texts import printable
from clara.training.faults import Fault, FaultKind, short

LONGEST = 16 * 2**20
"""Bytes of a line; a record of 20 documents of 256 tokens has about 25 kB."""

LONGEST_SHOWN = 1024
"""Bytes looked at to show the beginning of a line that is not JSON."""


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]] | Fault]:
    """Read a .jsonl or .jsonl.gz file line by line, never all at once; blank lines are left out.

    Yields:
        Line number, counted from 1, and object; or the fault of a line that holds none, after
        which reading goes on. Only DAMAGED_GZIP is the last.
    Raises:
        UnsupportedFile: another suffix.
        InvalidInput: no such file, or it may not be read.
    """
    number = 0
    try:
        with open_lines(path) as file:
            while line := file.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    _skip_rest(file, line)
                    reason = f"is longer than {LONGEST:,} bytes"
                    yield Fault(FaultKind.LINE_TOO_LONG, number, "", reason)
                elif not line.isspace():
                    yield _object(number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = f"cannot be unpacked: {error}"
        yield Fault(FaultKind.DAMAGED_GZIP, number + 1, "", reason)
    except OSError as error:
        raise InvalidInput(
            f"{printable(str(path))} cannot be read: {error.strerror}",
            field=printable(str(path)),
            remedy="Check that the file exists and may be read.",
        ) from error


def _skip_rest(file: BinaryIO | gzip.GzipFile, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(LONGEST)


def _object(number: int, line: bytes) -> tuple[int, dict[str, Any]] | Fault:
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        value = decode(line.decode().rstrip("\r\n"))
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: byte 0x{line[error.start]:02X} at offset {error.start}"
        return Fault(FaultKind.NOT_UTF8, number, "", reason)
    except (ValueError, RecursionError) as error:
        shown = short(line[:LONGEST_SHOWN].decode(errors="ignore").strip())
        return Fault(FaultKind.NOT_JSON, number, "", f"is not JSON: {_reason(error)}", shown)
    if not isinstance(value, dict):
        reason = f"is {type_name(value)}, not an object"
        return Fault(FaultKind.NOT_AN_OBJECT, number, "", reason, short(value))
    return number, value


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):  # its own text counts lines inside this one
        return f"{error.msg} at character {error.pos}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
