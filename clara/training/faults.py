"""What can be wrong with a file of training records, each fault with its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from clara.json_lines import type_name
from clara.texts import printable

VALUE_CHARS = 60
"""Characters of a value that are shown with its fault."""


class FaultKind(StrEnum):
    """Names of faults: stable, for programs to compare."""

    DAMAGED_GZIP = "damaged-gzip"
    """Cut short or altered; nothing after it was read."""
    LINE_TOO_LONG = "line-too-long"
    NOT_UTF8 = "not-utf-8"
    NOT_JSON = "not-json"
    NOT_AN_OBJECT = "not-an-object"
    WRONG_STAGE = "wrong-stage"
    """A record of another stage; said once for a line, not field by field."""
    MISSING = "missing"
    EMPTY = "empty"
    """Nothing at all, or only white space."""
    WRONG_TYPE = "wrong-type"
    WRONG_VALUE = "wrong-value"
    CONTROL_CHARACTER = "control-character"
    """One other than tab and line ends, or half of a surrogate pair."""
    UNEQUAL_PAIRS = "unequal-pairs"
    """Questions and answers of different number."""
    TOO_FEW_DOCUMENTS = "too-few-documents"
    TOO_MANY_DOCUMENTS = "too-many-documents"
    OUT_OF_RANGE = "out-of-range"
    """A position where no document is."""
    DUPLICATE_POSITION = "duplicate-position"
    NO_USABLE_RECORD = "no-usable-record"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong."""

    kind: FaultKind
    line: int | None
    """Counted from 1; None where the file as a whole is at fault."""
    field: str
    """JSON pointer into the line, such as `/docs/3`; empty for all of it."""
    reason: str
    """Follows the field: `is empty`."""
    value: str = ""
    """The value at fault, shortened, fit for a terminal."""

    def __str__(self) -> str:
        where = [f"line {self.line}"] if self.line else []
        said = f"{self.field} {self.reason}".strip()
        return ": ".join([*where, f"{said} ({self.value})" if self.value else said])

    def as_dict(self) -> dict[str, str | int | None]:
        """For JSON."""
        return {
            "line": self.line,
            "field": self.field,
            "kind": self.kind.value,
            "reason": self.reason,
            "value": self.value,
        }


def short(value: object) -> str:
    """A JSON value fit for a message: a text's beginning, of a list or object only the size."""
    if isinstance(value, list | dict):
        return f"{type_name(value)} of {len(value)}"
    if not isinstance(value, str):
        return json.dumps(value)[:VALUE_CHARS]
    cut = json.dumps(value[:VALUE_CHARS], ensure_ascii=False)
    return printable(cut[:-1] + '…"' if len(value) > VALUE_CHARS else cut)
