"""What FastAPI finds wrong with a request, as errors of ours: field, limit, remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError

from clara.errors import InvalidInput, InvalidText
from clara.texts import printable

MAX_FAULTS = 20
"""Faults told at once; the rest shows after these are mended."""
_SEGMENT_CHARS = 80
"""Longest part of a field's name that is repeated: the client chose it."""
_LIMITS = (
    *("max_length", "min_length", "le", "ge", "lt", "gt", "pattern", "expected"),
    "expected_tags",
)
_FORMS = ("equals", "in", "range", "prefix")
"""Of a filter: pydantic puts the form's name into the path of its members."""
_REMEDIES = {
    "missing": "Add it.",
    "extra_forbidden": "Remove it, or look at /docs for the right name.",
    "string_type": "Give a JSON string.",
    "int_type": "Give a JSON number without a fraction.",
    "int_parsing": "Give a whole number.",
    "list_type": "Give a JSON array.",
    "dict_type": "Give a JSON object.",
    "model_attributes_type": "Give a JSON object.",
    "too_short": "Give more of them.",
    "too_long": "Give fewer of them.",
    "string_too_short": "Make it longer.",
    "string_too_long": "Make it shorter.",
    "string_pattern_mismatch": "Use only the characters that the pattern allows.",
    "uuid_parsing": "Give an id as an earlier response named it.",
    "union_tag_not_found": "Add it: equals, in, range or prefix.",
    "string_unicode": "Remove the half of a surrogate pair.",
}


class InvalidRequest(InvalidInput):
    """A request that does not fit its schema."""


def faults_of(error: RequestValidationError) -> list[InvalidInput]:
    """The first faults of a request, at least one."""
    return [_fault(entry) for entry in error.errors()[:MAX_FAULTS]]


def pointer(path: Sequence[int | str]) -> str:
    """JSON pointer (RFC 6901) of a place in a body; the whole body is the empty one."""
    parts = (printable(str(part))[:_SEGMENT_CHARS] for part in path)
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _fault(entry: Mapping[str, Any]) -> InvalidInput:
    where, *path = entry["loc"]
    path = _place(path, entry["type"])
    field = pointer(path) if where == "body" else printable(".".join(map(str, path)))
    context = entry.get("ctx", {})
    limit = next((context[name] for name in _LIMITS if name in context), None)
    kind = InvalidText if entry["type"] == "string_unicode" else InvalidRequest
    return kind(
        f"{field or 'the body'}: {_lower(entry['msg'])}",
        field=field,
        limit=limit if isinstance(limit, int | float | None) else str(limit),
        remedy=_REMEDIES.get(entry["type"], "Give a value as the message says."),
    )


def _place(path: Sequence[int | str], kind: str) -> list[int | str]:
    """The member at fault, as it is in the body."""
    place = [part for part in path if part != "[key]"]
    if place[:1] == ["filters"] and len(place) > 2 and place[2] in _FORMS:
        del place[2]
    return [*place, "op"] if kind.startswith("union_tag") else place


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
