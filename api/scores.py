"""Scores a client attaches to a checkpoint: what the gate and a reader need, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clara.errors import InvalidInput
from clara.evaluation.gate import METRICS
from clara.texts import check_characters, check_length, printable

NAME_CHARS = 200
LARGEST = 1e15
"""No score or count is larger, and JSON can hold numbers that no float can."""
OPTIONS = ("mode", "setting", "ranker", "reader", "top_k", "max_new_tokens", "seed")


def checked_scores(body: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Numbers by set, as `clara evaluate --json` writes them; what is no number is left out.

    Raises:
        InvalidInput: no set, a set without a number that the gate reads, or a fraction out of
            range.
    """
    if not body:
        raise InvalidInput("no set is scored", field="", remedy="Send what was evaluated.")
    return {name: _checked(name, numbers) for name, numbers in body.items()}


def _checked(name: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    field = f"/{name}"
    check_length(name, field=field[:NAME_CHARS], max_chars=NAME_CHARS)
    check_characters(name, field=field)
    kept: dict[str, Any] = {key: value for key, value in numbers.items() if _is_number(value)}
    for key in kept:
        check_length(key, field=field, max_chars=NAME_CHARS)
        check_characters(key, field=field)
        _check_range(kept[key], f"{field}/{key}", -LARGEST, LARGEST)
    known = [metric for metric in METRICS if metric.key in kept]
    if not known:
        wanted = ", ".join(metric.key for metric in METRICS)
        raise InvalidInput(
            f"{field} has none of {wanted}",
            field=field,
            limit=wanted,
            remedy="Send the numbers of `clara evaluate --json`.",
        )
    for metric in known:
        if metric.higher:
            _check_range(kept[metric.key], f"{field}/{metric.key}", 0, 1)
    return kept | {"options": _options(numbers.get("options"), field)}


def _check_range(value: float, field: str, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidInput(
            f"{printable(field)} is not between {low:g} and {high:g}",
            field=field,
            limit=high,
            remedy="Send fractions, not percentages." if high == 1 else "Send a finite number.",
        )


def _options(given: Any, field: str) -> dict[str, Any]:
    """How it was evaluated: the gate compares only what was evaluated alike."""
    options = given if isinstance(given, dict) else {}
    kept = {key: options[key] for key in OPTIONS if isinstance(options.get(key), str | int)}
    for key, value in kept.items():
        where = f"{field}/options/{key}"
        if isinstance(value, str):
            check_length(value, field=where, max_chars=NAME_CHARS)
            check_characters(value, field=where)
        else:
            _check_range(value, where, -LARGEST, LARGEST)
    return kept


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
