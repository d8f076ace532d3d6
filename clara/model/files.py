"""Folders and JSON files of checkpoints: read with what is wrong told by name, written whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from clara.errors import InvalidCheckpoint

T = TypeVar("T")

_WORDS: Mapping[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    dict: "an object",
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object out of a model's folder.

    Raises:
        InvalidCheckpoint: the file is missing, or something else.
    """
    require(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(found, dict):
        raise damaged(path, f"a JSON object is expected, it holds {shown(found)}")
    return found


def typed(
    raw: Mapping[str, Any], name: str, wanted: type[T], path: Path, default: T | None = None
) -> T:
    """The field `name` of a JSON object; `default`, if there is one, where it is absent or null.

    Raises:
        InvalidCheckpoint: the field is missing, or its value is of another type.
    """
    value = raw.get(name)
    if value is None:
        if default is None:
            raise damaged(path, f"it lacks {name}")
        return default
    if not isinstance(value, wanted):
        raise damaged(path, f"{name} must be {_WORDS[wanted]}, it is {shown(value)}")
    return value


def expected(value: object, annotation: str) -> str | None:
    """What a value out of a JSON file should have been for a field of that type; None if it is."""
    if annotation == "int":
        return None if _is_count(value) else "a whole number from 1 on"
    if annotation == "tuple[int, ...]":
        fits = isinstance(value, list | tuple) and all(map(_is_count, value))
        return None if fits else "a list of whole numbers from 1 on"
    if annotation == "tuple[float, ...]":
        fits = isinstance(value, list | tuple) and all(map(_is_number, value))
        return None if fits else "a list of numbers"
    if annotation == "float | None":
        return None if value is None or _is_number(value) else "a number or null"
    wanted = {"str": str, "bool": bool}[annotation]
    return None if isinstance(value, wanted) else _WORDS[wanted]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def shown(value: object) -> str:
    """A value as an error quotes it: not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def require(path: Path) -> None:
    """Raises InvalidCheckpoint where a file of a model is missing."""
    if not path.is_file():
        raise InvalidCheckpoint(
            f"{path.parent} has no {path.name}",
            field=path.name,
            remedy="Give the folder that holds all of the model's files, or fetch it again",
        )


def damaged(path: Path, why: object) -> InvalidCheckpoint:
    """The error for a file that is there but unusable."""
    return InvalidCheckpoint(
        f"{path} cannot be read: {why}",
        field=path.name,
        remedy="Fetch or save the checkpoint again",
    )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path` when the block ends well, and is gone when it does not.

    Raises:
        InvalidCheckpoint: `path` exists; checkpoints are never overwritten.
    """
    if path.exists():
        raise InvalidCheckpoint(
            f"{path} exists already", field=str(path), remedy="Choose another folder"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name}.{uuid4().hex}.part"
    part.mkdir()
    try:
        yield part
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
