"""Reading for training stops at faults; checking finds every one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.errors import InvalidDataset, InvalidInput
from clara.training import report
from clara.training.data import FIRST_FAULTS, check, read
from clara.training.faults import FaultKind
from clara.training.records import CompressionRecord, QuestionRecord, Stage
from tests.clara.training.files import END_TO_END, FIVE, INSTRUCTION, PARAPHRASE, QA, VALID, write

CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\t\n\r")
TEXTS = st.text(CHARACTERS, min_size=1, max_size=30).filter(lambda text: not text.isspace())
NAMES = st.text(CHARACTERS, min_size=1, max_size=8).filter(lambda text: not text.isspace())
IDS = {"id": NAMES, "source": NAMES}


@st.composite
def compression(draw: st.DrawFn) -> dict[str, Any]:
    fields = draw(st.fixed_dictionaries(IDS | {"docs": st.tuples(TEXTS).map(list)}))
    if draw(st.booleans()):
        restatement = {"data_type": "paraphrase", "question": [""], "answers": [draw(TEXTS)]}
        return fields | restatement
    pairs = draw(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
    questions, answers = map(list, zip(*pairs, strict=True))
    return fields | {"data_type": "qa", "question": questions, "answers": answers}


@st.composite
def questions(draw: st.DrawFn, stage: int, top_k: int) -> dict[str, Any]:
    most = top_k if stage == 2 else top_k + 4
    documents = draw(st.lists(TEXTS, min_size=top_k + stage - 2, max_size=most))
    positions = st.integers(0, len(documents) - 1)
    answer = draw(
        st.fixed_dictionaries({"answer": TEXTS}) | st.fixed_dictionaries({"gold_answer": TEXTS})
    )
    return answer | {
        "id": draw(NAMES),
        "source": draw(NAMES),
        "question": draw(TEXTS),
        "docs": documents,
        "pos_index": draw(st.lists(positions, unique=True, max_size=3)),
    }


@st.composite
def valid_files(draw: st.DrawFn) -> tuple[Stage, int, list[dict[str, Any]]]:
    stage, top_k = draw(st.sampled_from(list(Stage))), draw(st.integers(1, 4))
    one = compression() if stage is Stage.COMPRESSION else questions(stage, top_k)
    return stage, top_k, draw(st.lists(one, min_size=1, max_size=5))


def as_written(record: CompressionRecord | QuestionRecord) -> dict[str, Any]:
    """A record as a line that reads the same; the second way from line to record and back."""
    fields: dict[str, Any] = {"id": record.id, "source": record.source}
    if isinstance(record, QuestionRecord):
        answer = {"answer": record.answer, "pos_index": list(record.positives)}
        return fields | answer | {"question": record.question, "docs": list(record.documents)}
    asked = [question for question, _ in record.pairs] or [""]
    answers = [answer for _, answer in record.pairs] or [record.restatement]
    said = {"data_type": record.kind, "question": asked, "answers": answers}
    return fields | said | {"docs": [record.document]}


@given(valid_files(), st.sampled_from(["records.jsonl", "records.jsonl.gz"]))
def test_a_valid_file_has_no_faults_and_reads_back(
    file: tuple[Stage, int, list[dict[str, Any]]], name: str
) -> None:
    stage, top_k, lines = file
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / name, lines)
        found = check(path, stage, generation_top_k=top_k)
        records = read(path, stage, generation_top_k=top_k)
    assert (found.faults, found.ok, found.records) == ([], True, len(lines))
    expected = [
        {"answer" if key == "gold_answer" else key: value for key, value in line.items()}
        for line in lines
    ]
    assert [as_written(record) for record in records] == expected


def test_several_files_are_read_in_order_up_to_a_limit(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [QA | {"id": "1"}, PARAPHRASE | {"id": "2"}])
    second = write(tmp_path / "b.jsonl.gz", [QA | {"id": "3"}, b"not read any more"])
    records = read([first, second], Stage.COMPRESSION, limit=3)
    assert [record.id for record in records] == ["1", "2", "3"]


def test_equal_documents_are_kept_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [INSTRUCTION, INSTRUCTION | {"docs": FIVE[::-1]}])
    first, second = read(path, Stage.INSTRUCTION)
    assert first.documents[0] is second.documents[4]


def test_a_source_can_be_left_out_whatever_its_records_are_like(tmp_path: Path) -> None:
    dev = {"source": "hotpotqa-dev(rpt)", "docs": []}
    path = write(tmp_path / "a.jsonl", [INSTRUCTION | dev, INSTRUCTION, {"source": ["x"]}])
    with pytest.raises(InvalidDataset, match="/source is a list"):
        read(path, Stage.INSTRUCTION, exclude_sources=["hotpotqa-dev(rpt)"])
    path = write(tmp_path / "a.jsonl", [INSTRUCTION | dev, INSTRUCTION])
    [record] = read(path, Stage.INSTRUCTION, exclude_sources=["hotpotqa-dev(rpt)"])
    assert record.source == "harbour"


def test_reading_names_the_first_faults_and_then_gives_up(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", [INSTRUCTION])
    bad = write(tmp_path / "bad.jsonl", [INSTRUCTION, INSTRUCTION | {"docs": []}, b"{", QA])
    with pytest.raises(InvalidDataset) as caught:
        read([good, bad], Stage.INSTRUCTION)
    message = caught.value.message.splitlines()
    assert message[0] == "3 faults in the records of stage 2 (instruction):"
    assert message[1] == f"  {bad}: line 2: /docs is empty"
    assert message[2].startswith(f"  {bad}: line 3: is not JSON")
    assert message[3].startswith(f"  {bad}: line 4: looks like stage 1")
    assert caught.value.field == f"{bad}:2"
    assert "clara data check" in str(caught.value)


def test_reading_does_not_go_through_a_file_of_nothing_but_faults(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [b"{"] * 10 * FIRST_FAULTS)
    with pytest.raises(InvalidDataset, match=f"at least {FIRST_FAULTS} faults") as caught:
        read(path, Stage.INSTRUCTION)
    assert f"line {FIRST_FAULTS}:" in caught.value.message
    assert f"line {FIRST_FAULTS + 1}:" not in caught.value.message


@pytest.mark.parametrize("lines", [[], [b""], [INSTRUCTION | {"source": "left out"}]])
def test_no_record_at_all_is_an_error(tmp_path: Path, lines: list[object]) -> None:
    path = write(tmp_path / "a.jsonl", lines)
    with pytest.raises(InvalidDataset, match="holds no usable record"):
        read(path, Stage.INSTRUCTION, exclude_sources={"left out"})


def test_a_file_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        read([tmp_path / "a.jsonl"], Stage.COMPRESSION)


@pytest.mark.parametrize("lines", [[], [b"{"]])
def test_a_file_without_a_usable_record_has_a_fault_as_a_whole(
    tmp_path: Path, lines: list[object]
) -> None:
    found = check(write(tmp_path / "a.jsonl", lines), Stage.COMPRESSION)
    assert (found.faults[-1].kind, found.faults[-1].line) == (FaultKind.NO_USABLE_RECORD, None)
    assert (found.faulty_lines, found.ok) == (len(lines), False)


def test_a_file_of_stage_2_is_none_of_stage_3(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [INSTRUCTION, INSTRUCTION])
    found = check(path, Stage.END_TO_END)
    assert [(fault.kind, fault.line) for fault in found.faults] == [(FaultKind.WRONG_STAGE, None)]
    assert "looks like stage 2 (instruction), not stage 3" in str(found.faults[0])
    with pytest.raises(InvalidDataset, match="nothing to choose"):
        read(path, Stage.END_TO_END)


def test_few_candidates_here_and_there_are_no_fault_of_stage_3(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [INSTRUCTION, END_TO_END])
    assert check(path, Stage.END_TO_END).ok
    assert [len(record.documents) for record in read(path, Stage.END_TO_END)] == [5, 8]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(list(Stage))), min_size=1, max_size=30))
def test_checking_goes_on_to_the_last_line(rows: list[tuple[bool, Stage]]) -> None:
    """Whichever lines are broken, those and no others have a fault."""
    stage = rows[0][1]
    lines = [VALID[stage] if good else VALID[stage] | {"docs": [""]} for good, _ in rows]
    with tempfile.TemporaryDirectory() as folder:
        found = check(write(Path(folder) / "a.jsonl", lines), stage)
    broken = [number for number, (good, _) in enumerate(rows, 1) if not good]
    assert sorted({fault.line for fault in found.faults if fault.line}) == broken
    assert (found.faulty_lines, found.records) == (len(broken), len(rows) - len(broken))


def test_faults_past_a_bound_are_still_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "KEPT", 3)
    found = check(write(tmp_path / "a.jsonl", [b"{"] * 9 + [QA]), Stage.COMPRESSION)
    assert [fault.line for fault in found.faults] == [1, 2, 3]
    assert found.fault_counts == {FaultKind.NOT_JSON: 9}
    assert found.faulty_lines == 9
