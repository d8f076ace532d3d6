"""Conditions on a document's metadata: the values, their JSON form, and how a user types them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as attribute
from typing import Any

from clara.errors import InvalidFilter

Scalar = str | int | float | bool
Bound = str | int | float

MAX_FILTERS = 16
MAX_VALUES = 100
"""Values one `in` may name."""


@dataclass(frozen=True, slots=True)
class Equals:
    """The field has this value; 1 and 1.0 are one number, 1, "1" and true are three values."""

    field: str
    value: Scalar
    op: str = attribute(default="equals", init=False)


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of these values."""

    field: str
    values: tuple[Scalar, ...]
    op: str = attribute(default="in", init=False)


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies between the bounds given: numbers by size, strings by code points.

    Bounds are all numbers or all strings; a value of the other kind is not in the range.
    """

    field: str
    gte: Bound | None = None
    gt: Bound | None = None
    lte: Bound | None = None
    lt: Bound | None = None
    op: str = attribute(default="range", init=False)

    def bounds(self) -> dict[str, Bound]:
        """Those that are given, by name."""
        named = {"gte": self.gte, "gt": self.gt, "lte": self.lte, "lt": self.lt}
        return {name: bound for name, bound in named.items() if bound is not None}


@dataclass(frozen=True, slots=True)
class Prefix:
    """The field is a string that starts so."""

    field: str
    value: str
    op: str = attribute(default="prefix", init=False)


Filter = Equals | In | Range | Prefix


def as_json(filters: Sequence[Filter]) -> list[dict[str, Any]]:
    """What is stored with a question, and what a request holds."""
    entries = [asdict(one) for one in filters]
    return [{k: v for k, v in entry.items() if v is not None} for entry in entries]


def from_json(entries: Sequence[Mapping[str, Any]]) -> list[Filter]:
    """The other way round, of what `as_json` gave or a request was checked to be."""
    return [_from_json(dict(entry)) for entry in entries]


def _from_json(entry: dict[str, Any]) -> Filter:
    match entry.pop("op"):
        case "equals":
            return Equals(**entry)
        case "in":
            return In(entry["field"], tuple(entry["values"]))
        case "range":
            return Range(**entry)
        case _:
            return Prefix(**entry)


def check_range(found: Range, at: str) -> None:
    """Refuse a range without bounds, with two lower or upper ones, or of two kinds.

    Args:
        at: the range's place in the request, to which the bound's name is added.
    Raises:
        InvalidFilter: the bound at fault is its `field`.
    """
    bounds = found.bounds()
    if not bounds:
        raise InvalidFilter(
            f"the range of {found.field!r} has no bound",
            field=at,
            limit="gte, gt, lte, lt",
            remedy="Give at least one of them.",
        )
    for one, other in (("gte", "gt"), ("lte", "lt")):
        if one in bounds and other in bounds:
            raise InvalidFilter(
                f"the range of {found.field!r} has both {one} and {other}",
                field=f"{at}/{other}",
                remedy="Give one of them.",
            )
    kinds = {name: isinstance(bound, str) for name, bound in bounds.items()}
    first = next(iter(kinds))
    odd = next((name for name, is_text in kinds.items() if is_text != kinds[first]), None)
    if odd:
        raise InvalidFilter(
            f"the range of {found.field!r} compares with a number and with a string",
            field=f"{at}/{odd}",
            remedy="Give bounds of one kind.",
        )


_TYPED = re.compile(r"\s*([^\s<>=^]+)\s*(>=|<=|\^=|=|>|<)\s*(.*)", re.DOTALL)
"""Field, comparison, value."""
_BOUNDS = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}


def typed(text: str) -> Filter:
    """A filter as typed on a command line.

    `lang=en` equals, `lang=en,de` one of, `year>=2020` a range, `path^=manual/` a prefix. A value
    that reads as a JSON number, `true`, `false` or a quoted string is that; others are strings.

    Raises:
        InvalidFilter: it has another form.
    """
    found = _TYPED.fullmatch(text)
    if found is None or not _parts(found[3]):
        raise InvalidFilter(
            f"{text!r} is no filter",
            field="--filter",
            limit="field=value, field=a,b, field>=1, field<2, field^=start",
            remedy="Name a field of the metadata, a comparison and a value.",
        )
    field, comparison, value = found[1], found[2], found[3].strip()
    if comparison == "^=":
        return Prefix(field, str(_value(value)) if value.startswith('"') else value)
    if comparison in _BOUNDS:
        bound = _value(value)
        return Range(field, **{_BOUNDS[comparison]: value if isinstance(bound, bool) else bound})
    values = [_value(one) for one in _parts(value)]
    return Equals(field, values[0]) if len(values) == 1 else In(field, tuple(values))


_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[^,]+')


def _parts(value: str) -> list[str]:
    """Split at commas; a quoted value keeps its own."""
    return [part.strip() for part in _PART.findall(value) if part.strip()]


def _value(text: str) -> Scalar:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    if isinstance(found, float) and not math.isfinite(found):
        return text
    return found if isinstance(found, str | int | float) else text
