"""Files of JSON lines: what the readers of documents, training records and questions share."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from clara.errors import UnsupportedFile
from clara.texts import printable

_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def open_lines(path: Path) -> BinaryIO | gzip.GzipFile:
    """A .jsonl or .jsonl.gz file, to be read line by line.

    Raises:
        UnsupportedFile: another suffix.
        OSError: no such file, or it may not be read.
    """
    if path.name.lower().endswith(".jsonl.gz"):
        return gzip.open(path, "rb")
    if path.name.lower().endswith(".jsonl"):
        return path.open("rb")
    raise UnsupportedFile(
        f"{printable(str(path))} is not a file of JSON lines",
        field=printable(str(path)),
        remedy="Give a file that ends in .jsonl or .jsonl.gz.",
    )


def type_name(value: object) -> str:
    """What JSON calls a value of this type: `a list`."""
    return _TYPES[type(value)]


def decode(line: str) -> Any:
    """The value of one line.

    Raises:
        ValueError: it is not JSON, as NaN and Infinity are not, though Python writes them.
        RecursionError: it is nested too deeply.
    """
    return _DECODER.decode(line)


def _no_such_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_no_such_number)
