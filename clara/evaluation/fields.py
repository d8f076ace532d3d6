"""One record of a file, field by field: every fault is named with its place and its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from clara.errors import InvalidDataset
from clara.json_lines import type_name


@dataclass(frozen=True, slots=True)
class Fields:
    """The JSON object of one line."""

    where: str
    """`file:line`."""
    values: Mapping[str, Any]
    default_id: str | None
    """Of a record without one; None: each must have one."""
    id_key: str = "id"

    @property
    def id(self) -> str:
        """Name of the record: a string, or a whole number."""
        if self.default_id is None and self.id_key not in self.values:
            self.refuse(self.id_key, "is missing", "Give each line one of its own.")
        found = self.values.get(self.id_key, self.default_id)
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        return self._text(self.id_key, found)

    def text(self, name: str, *, default: str | None = None) -> str:
        """A string that says something; `default`, where given, stands for a missing one."""
        if name not in self.values:
            if default is None:
                self.refuse(name, "is missing", f'Give each line a "{name}".')
            return default
        return self._text(name, self.values[name])

    def string(self, name: str) -> str:
        """A string that may be empty; so is a missing one."""
        return self._string(name, self.values.get(name, ""))

    def texts(self, name: str, *, empty: bool = False) -> tuple[str, ...]:
        """A list of strings that say something; `empty` allows one without any."""
        found = self._list(name)
        if not found and not empty:
            self.refuse(name, "is an empty list", "Give at least one.")
        return tuple(self._text(f"{name}/{i}", text) for i, text in enumerate(found))

    def indices(self, name: str, *, below: int) -> tuple[int, ...]:
        """Different whole numbers from 0 to `below` - 1; a missing list is empty."""
        found = self._list(name) if name in self.values else []
        for i, index in enumerate(found):
            at = f"{name}/{i}"
            if not isinstance(index, int) or isinstance(index, bool):
                self.refuse(at, f"is {type_name(index)}, not a whole number", "Write 0, 1, ...")
            if not 0 <= index < below:
                self.refuse(at, f"is {index}; the record has {below} docs", "Count docs from 0.")
            if index in found[:i]:
                self.refuse(at, f"is {index} a second time", "Name each passage once.")
        return tuple(found)

    def refuse(self, name: str, reason: str, remedy: str) -> NoReturn:
        """Raise InvalidDataset for one field of this record, named as a JSON pointer."""
        at = f"{self.where}: /{name}"
        raise InvalidDataset(f"{at} {reason}", field=at, remedy=remedy)

    def _list(self, name: str) -> list[Any]:
        if name not in self.values:
            self.refuse(name, "is missing", f'Give each line a list "{name}".')
        found = self.values[name]
        if not isinstance(found, list):
            self.refuse(name, f"is {type_name(found)}, not a list", "Write it as [...].")
        return found

    def _text(self, name: str, found: object) -> str:
        text = self._string(name, found)
        if not text.strip():
            self.refuse(name, "is empty", "Give a text, or leave the record out.")
        return text

    def _string(self, name: str, found: object) -> str:
        if not isinstance(found, str):
            self.refuse(name, f"is {type_name(found)}, not a string", "Write it in quotes.")
        half = next((at for at, letter in enumerate(found) if "\ud800" <= letter <= "\udfff"), None)
        if half is not None:
            self.refuse(name, f"has half of a surrogate pair at position {half}", "Remove it.")
        return found
