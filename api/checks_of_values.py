"""What a member of a document's metadata may be called and hold; filters compare with the same."""

from __future__ import annotations

import math
from typing import NoReturn

from clara.errors import InvalidInput
from clara.texts import check_characters, check_length, printable

KEY_CHARS = 64
VALUE_CHARS = 1000


def check_key(key: str, field: str) -> None:
    """Refuse a name that is empty, too long, or cannot be stored."""
    if not 0 < len(key) <= KEY_CHARS:
        raise InvalidInput(
            f"{field}: a key has 1 to {KEY_CHARS} characters, this one {len(key):,}",
            field=field,
            limit=KEY_CHARS,
            remedy="Rename it.",
        )
    check_characters(key, field=field)


def check_value(value: object, field: str) -> None:
    """Refuse what is no string, finite number of 64 bits, true or false."""
    match value:
        case str():
            check_length(value, field=field, max_chars=VALUE_CHARS)
            check_characters(value, field=field)
        case bool():
            pass
        case int() if not -(2**63) <= value < 2**63:
            refuse_value(field, "is an integer of more than 64 bits", limit=2**63 - 1)
        case float() if not math.isfinite(value):
            refuse_value(
                field, "is too large for a number of 64 bits", limit=1.7976931348623157e308
            )
        case int() | float():
            pass
        case _:
            refuse_value(field, "is neither a string nor a number, true or false")


def refuse_value(field: str, what: str, limit: float | None = None) -> NoReturn:
    """Raise InvalidInput."""
    raise InvalidInput(
        f"{printable(field)} {what}",
        field=field,
        limit=limit,
        remedy="Metadata is flat: strings, finite numbers, true and false.",
    )
