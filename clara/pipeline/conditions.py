"""Filters as conditions of SQL: Postgres alone decides what a filter means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal, or_
from sqlalchemy.dialects.postgresql import JSONB

from clara.db.tables import Passage
from clara.filters import Bound, Equals, Filter, In, Prefix, Range

Condition = ColumnElement[bool]


def fulfils(filters: Sequence[Filter]) -> list[Condition]:
    """What a row of `passage` must fulfil, all of it."""
    return [_condition(one) for one in filters]


def _condition(one: Filter) -> Condition:
    match one:
        case Equals():
            return _has(one.field, one.value)
        case In():
            return or_(*(_has(one.field, value) for value in one.values))
        case Range():
            return and_(*(_compares(one.field, *bound) for bound in one.bounds().items()))
        case Prefix():
            return and_(_is(one.field, "string"), func.starts_with(_text(one.field), one.value))


def _has(field: str, value: Any) -> Condition:
    """By containment, which the index of the column answers."""
    return Passage.metadata_.contains({field: value})


def _compares(field: str, comparison: str, bound: Bound) -> Condition:
    """Strings by code point, which is the order of UTF-8; numbers exactly, of any size."""
    sign = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}[comparison]
    if isinstance(bound, str):
        return and_(_is(field, "string"), _text(field).collate("C").op(sign)(bound))
    return and_(_is(field, "number"), _value(field).op(sign)(literal(bound, JSONB)))


def _is(field: str, kind: str) -> Condition:
    return func.jsonb_typeof(_value(field)) == kind


def _value(field: str) -> Any:
    return func.jsonb_extract_path(Passage.metadata_, field)


def _text(field: str) -> Any:
    return func.jsonb_extract_path_text(Passage.metadata_, field)
