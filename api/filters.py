"""Filters of a request: their JSON shapes, and what pydantic cannot say about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from api.checks_of_values import check_key, check_value, refuse_value
from api.errors import raise_all
from clara import filters
from clara.errors import ClaraError, InvalidInput
from clara.filters import MAX_FILTERS, MAX_VALUES

_BOUND = {"anyOf": [{"type": "number"}, {"type": "string"}]}
_SCALAR = {"anyOf": [*_BOUND["anyOf"], {"type": "boolean"}]}
Bound = Annotated[Any, WithJsonSchema(_BOUND)]
Scalar = Annotated[Any, WithJsonSchema(_SCALAR)]


class _Filter(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    field: str = Field(description="Name of a member of the documents' metadata.")


class EqualsFilter(_Filter):
    """The field has this value."""

    op: Literal["equals"]
    value: Scalar


class InFilter(_Filter):
    """The field has one of these values."""

    op: Literal["in"]
    values: list[Scalar] = Field(min_length=1, max_length=MAX_VALUES)


class RangeFilter(_Filter):
    """The field is a number, or a string, between bounds of that kind."""

    op: Literal["range"]
    gte: Bound = None
    gt: Bound = None
    lte: Bound = None
    lt: Bound = None


class PrefixFilter(_Filter):
    """The field is a string that starts so."""

    op: Literal["prefix"]
    value: str


Filter = Annotated[EqualsFilter | InFilter | RangeFilter | PrefixFilter, Field(discriminator="op")]
Filters = Annotated[
    list[Filter],
    Field(max_length=MAX_FILTERS, description="What a document's metadata must fulfil, all of it."),
]


def checked(given: Sequence[Filter], at: str) -> list[dict[str, Any]]:
    """What is stored with a question.

    Args:
        at: place of the list in the request.
    Raises:
        ClaraError: the fault of a filter, or the first fault of each.
    """
    faults: list[ClaraError] = []
    for index, one in enumerate(given):
        try:
            _check(one, f"{at}/{index}")
        except InvalidInput as fault:
            faults.append(fault)
    raise_all(faults)
    return [one.model_dump(exclude_none=True) for one in given]


def _check(one: Filter, at: str) -> None:
    check_key(one.field, f"{at}/field")
    match one:
        case EqualsFilter():
            check_value(one.value, f"{at}/value")
        case InFilter():
            for place, value in enumerate(one.values):
                check_value(value, f"{at}/values/{place}")
        case PrefixFilter():
            check_value(one.value, f"{at}/value")
        case RangeFilter():
            _check_range(one, at)


def _check_range(one: RangeFilter, at: str) -> None:
    found = filters.Range(one.field, one.gte, one.gt, one.lte, one.lt)
    for name, bound in found.bounds().items():
        if isinstance(bound, bool):
            refuse_value(f"{at}/{name}", "is neither a string nor a number")
        check_value(bound, f"{at}/{name}")
    filters.check_range(found, at)
