from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from clara.errors import InvalidDataset
from clara.evaluation.datasets import Record, read_records, read_restatements, stem

GOOD: dict[str, Any] = {
    "id": "nq-1",
    "question": "Who built the wall?",
    "golden_answers": ["Margaret Osgood", "Osgood"],
    "answer": "Margaret Osgood",
    "docs": ["Tea came in 1723.", "Margaret Osgood built the wall."],
    "pos_index": [1],
    "source": "nq",
}


def write(path: Path, *records: object) -> Path:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines)
    return path


@pytest.mark.parametrize("name", ["nq.jsonl", "nq.jsonl.gz", "NQ.JSONL"])
def test_a_file_gives_its_records_in_order(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, GOOD, {**GOOD, "id": 7, "type": "bridge"})
    first, second = read_records(path)
    assert first == Record(
        "nq-1",
        GOOD["question"],
        ("Margaret Osgood", "Osgood"),
        tuple(GOOD["docs"]),
        (1,),
        "nq",
    )
    assert first.gold_answer == "Margaret Osgood"
    assert first.gold_docs == ("Margaret Osgood built the wall.",)
    assert second.id == "7"
    assert stem(path).lower() == "nq"


def test_only_question_docs_and_an_answer_are_needed(tmp_path: Path) -> None:
    bare = {"question": "Who?", "answer": "Osgood", "docs": []}
    path = tmp_path / "own.jsonl"
    path.write_text("\n" + json.dumps(bare) + "\n  \n")
    assert read_records(path) == (Record("2", "Who?", ("Osgood",), (), ()),)


def test_a_limit_takes_the_first_and_does_not_look_further(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, {**GOOD, "id": "2"}, {"broken": True})
    assert [record.id for record in read_records(path, limit=2)] == ["nq-1", "2"]
    with pytest.raises(InvalidDataset, match=r"a\.jsonl:3: /docs is missing"):
        read_records(path)


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"question": None}, "question", "is null, not a string"),
        ({"question": " \n"}, "question", "is empty"),
        ({"question": "a \ud800 b"}, "question", "has half of a surrogate pair at position 2"),
        ({"docs": "text"}, "docs", "is a string, not a list"),
        ({"docs": ["a", 3]}, "docs/1", "is a number, not a string"),
        ({"docs": ["a", "  "]}, "docs/1", "is empty"),
        ({"golden_answers": []}, "golden_answers", "is an empty list"),
        ({"golden_answers": ["a", {}]}, "golden_answers/1", "is an object, not a string"),
        ({"golden_answers": "a"}, "golden_answers", "is a string, not a list"),
        ({"pos_index": 1}, "pos_index", "is a number, not a list"),
        ({"pos_index": [0, 2]}, "pos_index/1", "is 2; the record has 2 docs"),
        ({"pos_index": [-1]}, "pos_index/0", "is -1; the record has 2 docs"),
        ({"pos_index": [True]}, "pos_index/0", "is true or false, not a whole number"),
        ({"pos_index": [1.0]}, "pos_index/0", "is a number, not a whole number"),
        ({"pos_index": [1, 1]}, "pos_index/1", "is 1 a second time"),
        ({"id": []}, "id", "is a list, not a string"),
        ({"id": "first"}, "id", "'first' is that of line 1 too"),
        ({"source": 1}, "source", "is a number, not a string"),
    ],
)
def test_a_fault_is_refused_with_file_line_field_and_reason(
    tmp_path: Path, change: dict[str, Any], field: str, reason: str
) -> None:
    path = write(tmp_path / "bad.jsonl", {**GOOD, "id": "first"}, {**GOOD, **change})
    with pytest.raises(InvalidDataset) as caught:
        read_records(path)
    assert caught.value.field == f"{path}:2: /{field}"
    assert caught.value.message == f"{path}:2: /{field} {reason}"
    assert caught.value.remedy


@pytest.mark.parametrize("missing", ["question", "docs", "golden_answers"])
def test_a_missing_field_is_named(tmp_path: Path, missing: str) -> None:
    record = {key: value for key, value in GOOD.items() if key not in (missing, "answer")}
    path = write(tmp_path / "bad.jsonl", record)
    named = "answer" if missing == "golden_answers" else missing
    with pytest.raises(InvalidDataset, match=rf"bad\.jsonl:1: /{named} is missing"):
        read_records(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{\n", "1 is not JSON"),
        (b"[]\n", "1 is not a JSON object"),
        (b'{"question": NaN}\n', "NaN is not a JSON number"),
        (b'{"question": "\xff"}\n', "1 is not UTF-8 at byte 14"),
        (b"[" * 100_000 + b"\n", "1 is not JSON"),
        (b"", "holds no question"),
        (b"\n \n", "holds no question"),
    ],
)
def test_a_line_that_is_no_record_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidDataset, match=reason):
        read_records(path)


def test_a_file_cut_short_a_missing_one_and_another_kind_are_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.jsonl.gz", *({**GOOD, "id": str(i)} for i in range(99)))
    part = tmp_path / "part.jsonl.gz"
    part.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(InvalidDataset, match="cannot be unpacked"):
        read_records(part)
    with pytest.raises(InvalidDataset, match="cannot be read: No such file"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(InvalidDataset, match="is no file of JSON lines"):
        read_records(write(tmp_path / "a.json", GOOD))


def test_restatements_are_taken_from_among_other_records(tmp_path: Path) -> None:
    asked = {"id": "q", "data_type": "qa", "question": ["?"], "answers": ["a"], "docs": ["b"]}
    said = {"id": "p", "data_type": "paraphrase", "question": [""], "answers": ["x"], "docs": ["y"]}
    path = write(tmp_path / "stage1.jsonl", asked, said, {**said, "id": "r"})
    assert [
        (found.id, found.passage, found.text) for found in read_restatements(path, limit=1)
    ] == [("p", "y", "x")]
    with pytest.raises(InvalidDataset, match=r"one\.jsonl holds no restatement"):
        read_restatements(write(tmp_path / "one.jsonl", asked))
    two = write(tmp_path / "two.jsonl", {**said, "docs": ["y", "z"]})
    with pytest.raises(InvalidDataset, match=r"two\.jsonl:1: /docs has 2 passages"):
        read_restatements(two)
