"""What the calls take: lists of the right depth and length, or an error that names the place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from clara.errors import EmptyText, InvalidInput


class LongDocuments(StrEnum):
    """What becomes of a document over the checkpoint's `doc_max_length`."""

    ERROR = "error"
    """It is refused."""
    SPLIT = "split"
    """It becomes several passages, each with a latent of its own; nothing is lost."""
    CUT = "cut"
    """Its end is not read: what the published code does, silently."""


def listed(value: object, name: str, *, of: str) -> list[Any]:
    """`value` as a list.

    Args:
        value: any iterable but a string or a mapping.
        name: of the argument, as the caller wrote it.
        of: what it should hold, in the plural.
    Raises:
        InvalidInput: something else; most often a string that lacks its brackets.
    """
    if isinstance(value, str | bytes):
        raise InvalidInput(
            f"{name} is a string; a list of {of} is due",
            field=name,
            remedy=f"Put it in brackets: {name}=[...]",
        )
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise InvalidInput(f"{name} is a {type(value).__name__}; a list of {of} is due", field=name)
    return list(value)


def texts(value: object, name: str) -> list[str]:
    """`value` as a list of texts that say something.

    Raises:
        InvalidInput: no list, or something in it is no string.
        EmptyText: a text of white space only.
    """
    found = listed(value, name, of="texts")
    for position, text in enumerate(found):
        text_of(text, f"{name}[{position}]")
    return found


def text_of(value: object, name: str) -> str:
    """`value` if it is a text that says something. Raises as `texts`."""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is a {type(value).__name__}; a text is due", field=name)
    if not value.strip():
        raise EmptyText(f"{name} is empty", field=name, remedy="Leave it out")
    return value


def filled(value: object, name: str, *, of: str) -> list[Any]:
    """`value` as a list of at least one entry. Raises InvalidInput."""
    found = listed(value, name, of=of)
    if not found:
        raise InvalidInput(
            f"{name} is empty; a question needs at least one of its {of}",
            field=name,
            remedy="Leave the question out where nothing was found for it",
        )
    return found


def lists(value: object, name: str, *, of: str) -> list[list[Any]]:
    """`value` as a list of lists, none of them empty. Raises InvalidInput."""
    return [
        filled(part, f"{name}[{position}]", of=of)
        for position, part in enumerate(listed(value, name, of=f"lists of {of}"))
    ]


def documents_of(value: object, name: str = "documents") -> list[list[str]]:
    """`value` as a list of lists of texts. Raises as `lists` and `texts`."""
    return [
        texts(part, f"{name}[{position}]")
        for position, part in enumerate(lists(value, name, of="documents"))
    ]


def paired(questions: Sequence[object], given: Sequence[object], name: str) -> None:
    """Raises InvalidInput unless there is a question, and an entry of `name` for each."""
    if not questions:
        raise InvalidInput("questions is empty; there is nothing to answer", field="questions")
    if len(questions) != len(given):
        raise InvalidInput(
            f"there are {len(questions)} questions, but {name} has {len(given)} lists",
            field=name,
            remedy=f"Give one list of {name} per question",
        )


def count(value: object, name: str, *, least: int = 1, most: int | None = None) -> int:
    """`value` if it is a whole number in range. Raises InvalidInput."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        span = f"from {least} on" if most is None else f"in {least}..{most}"
        raise InvalidInput(
            f"{name} is {value!r}; it must be a whole number {span}",
            field=name,
            limit=least if most is None else most,
        )
    return int(value)  # type: ignore[call-overload, no-any-return]


def choice(value: object) -> LongDocuments:
    """`value` as one of LongDocuments. Raises InvalidInput."""
    try:
        return LongDocuments(value)  # type: ignore[arg-type]
    except ValueError as error:
        known = ", ".join(repr(str(entry)) for entry in LongDocuments)
        raise InvalidInput(
            f"long_documents is {value!r}; known are {known}", field="long_documents"
        ) from error
