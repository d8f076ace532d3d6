"""Lines that hold no object are faults, and the lines after them are read all the same."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from clara.errors import InvalidInput, UnsupportedFile
from clara.training import lines
from clara.training.faults import Fault, FaultKind
from clara.training.lines import read_objects
from tests.clara.training.files import write


def told(path: Path) -> list[object]:
    return [
        (found.line, found.kind.value) if isinstance(found, Fault) else found
        for found in read_objects(path)
    ]


@pytest.mark.parametrize("name", ["records.jsonl", "records.jsonl.gz"])
def test_objects_come_with_their_line_numbers(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [{"a": 1}, b"", b"  ", {"b": "é"}])
    assert told(path) == [(1, {"a": 1}), (4, {"b": "é"})]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert told(write(tmp_path / "a.jsonl", [b'\xef\xbb\xbf{"a": 1}'])) == [(1, {"a": 1})]


@pytest.mark.parametrize(
    ("line", "kind", "reason", "value"),
    [
        (b'{"a": ', "not-json", "is not JSON: Expecting value at character 6", '"{\\"a\\":"'),
        (b'{"a": NaN}', "not-json", "is not JSON: NaN is not a JSON number", '"{\\"a\\": NaN}"'),
        (b"[" * 100_000, "not-json", "is not JSON: nested too deeply", None),
        (b"[1, 2]", "not-an-object", "is a list, not an object", "a list of 2"),
        (b"null", "not-an-object", "is null, not an object", "null"),
        (b'{"a": "\xff"}', "not-utf-8", "is not UTF-8: byte 0xFF at offset 7", ""),
        (b"x" * 101, "not-json", "is not JSON: Expecting value at character 0", None),
    ],
)
def test_a_line_without_an_object_is_a_fault_and_not_the_end(
    tmp_path: Path, line: bytes, kind: str, reason: str, value: str | None
) -> None:
    path = write(tmp_path / "a.jsonl", [{"a": 1}, line, {"b": 2}])
    before, fault, after = read_objects(path)
    assert isinstance(fault, Fault)
    assert (fault.line, fault.kind, fault.field, fault.reason) == (2, kind, "", reason)
    assert value is None or fault.value == value
    assert (before, after) == ((1, {"a": 1}), (3, {"b": 2}))


@pytest.mark.parametrize("over", [1, 50, 99, 100, 101, 350])
def test_a_line_past_any_sense_is_passed_over_without_being_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: int
) -> None:
    monkeypatch.setattr(lines, "LONGEST", 100)
    path = write(tmp_path / "a.jsonl", [b"x" * 99, b"x" * (99 + over), {"b": 2}])
    assert told(path) == [(1, "not-json"), (2, "line-too-long"), (3, {"b": 2})]


def test_gzip_that_is_cut_short_gives_the_lines_it_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", [{"a": i, "text": str(i) * 99} for i in range(200)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    *objects, last = read_objects(path)
    assert isinstance(last, Fault)
    assert 0 < len(objects) < 200
    assert (last.kind, last.line) == (FaultKind.DAMAGED_GZIP, len(objects) + 1)


def test_gzip_that_was_altered_is_damaged(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b'{"a": 1}\n'))
    content[-8] ^= 1
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    assert told(path)[-1] == (2, "damaged-gzip")
    path.write_bytes(b'{"a": 1}\n')
    assert told(path) == [(1, "damaged-gzip")]


def test_a_file_of_another_kind_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFile, match=r"a\.json is not a file of JSON lines"):
        list(read_objects(tmp_path / "a.json"))
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        list(read_objects(tmp_path / "a.jsonl"))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        list(read_objects(tmp_path / "folder.jsonl"))
