from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from clara.errors import UnsupportedFile
from clara.json_lines import decode, open_lines, type_name


@pytest.mark.parametrize("name", ["a.jsonl", "A.JSONL", "a.jsonl.gz", "a.Jsonl.GZ"])
def test_a_file_is_unpacked_where_its_name_says_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"{}\n") if name.lower().endswith("gz") else b"{}\n")
    with open_lines(path) as file:
        assert list(file) == [b"{}\n"]


def test_another_suffix_is_refused_and_a_missing_file_is_not_found(tmp_path: Path) -> None:
    for name in ("a.json", "a.gz", "a.jsonl.zip", "a\x00b"):
        with pytest.raises(UnsupportedFile, match="is not a file of JSON lines") as raised:
            open_lines(tmp_path / name)
        assert "\x00" not in str(raised.value)
    with pytest.raises(FileNotFoundError):
        open_lines(tmp_path / "a.jsonl")


@pytest.mark.parametrize("line", ["NaN", "[Infinity]", '{"a": -Infinity}', "", "{} {}", "{'a': 1}"])
def test_what_is_no_json_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"JSON number|Expecting|Extra data"):
        decode(line)


def test_types_go_by_the_names_of_json() -> None:
    values = [{}, [], "", True, 1, 1.5, None]
    assert [decode(json.dumps(value)) for value in values] == values
    assert [type_name(value) for value in values] == [
        "an object",
        "a list",
        "a string",
        "true or false",
        "a number",
        "a number",
        "null",
    ]
