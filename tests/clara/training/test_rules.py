"""Every fault of a record by its name, field and reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clara.texts import check_text
from clara.training.faults import VALUE_CHARS, Fault, FaultKind
from clara.training.records import CompressionRecord, QuestionRecord, Record, Stage
from clara.training.rules import parse
from tests.clara.training.files import END_TO_END, FIVE, INSTRUCTION, PARAPHRASE, QA, VALID

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=6), max_leaves=8)
KEYS = ["id", "source", "data_type", "question", "docs", "context", "content", "answer"]
KEYS += ["answers", "golden_answers", "gold_answer", "pos_index"]


def parsed(fields: dict[str, Any], stage: int, top_k: int = 5) -> Record | list[Fault]:
    return parse(fields, Stage(stage), line=7, name="my.jsonl", generation_top_k=top_k)


def faults(fields: dict[str, Any], stage: int, top_k: int = 5) -> list[Fault]:
    found = parsed(fields, stage, top_k)
    assert isinstance(found, list)
    return found


def question(fields: dict[str, Any], stage: int = 2) -> QuestionRecord:
    found = parsed(fields, stage)
    assert isinstance(found, QuestionRecord)
    return found


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in names}


def with_document(text: object) -> dict[str, Any]:
    return {"docs": [*FIVE[:4], text]}


def test_questions_of_a_document_become_a_record() -> None:
    assert parsed(QA, 1) == CompressionRecord(
        id="qa-1",
        source="harbour",
        kind="qa",
        document="Harbour\nMargaret Osgood built the wall in 1874.",
        pairs=(("who built the wall", "Margaret Osgood"), ("when was it built", "1874")),
        restatement="",
    )


def test_a_paraphrase_becomes_a_record_of_its_first_answer() -> None:
    found = parsed(PARAPHRASE | {"answers": ["In other words.", "In others still."]}, 1)
    assert isinstance(found, CompressionRecord)
    assert (found.kind, found.pairs) == ("paraphrase", ())
    assert found.restatement == "In other words."


@pytest.mark.parametrize(("stage", "fields"), [(2, INSTRUCTION), (3, END_TO_END)])
def test_a_question_with_its_documents_becomes_a_record(stage: int, fields: dict[str, Any]) -> None:
    assert parsed(fields, stage) == QuestionRecord(
        id="question-1",
        source="harbour",
        question="who built it",
        documents=tuple(fields["docs"]),
        answer="Osgood",
        positives=(2,),
    )


@pytest.mark.parametrize("name", ["docs", "context", "content"])
def test_documents_go_by_three_names(name: str) -> None:
    fields = without(INSTRUCTION, "docs") | {name: FIVE}
    assert question(fields).documents == tuple(FIVE)


@pytest.mark.parametrize(
    "answers",
    [
        {"answer": "yes"},
        {"answers": ["yes", "no"]},
        {"golden_answers": ["yes", "no"]},
        {"gold_answer": "yes"},
        {"answer": None, "gold_answer": "yes"},
        {"gold_answer": "no", "answer": "yes"},
    ],
)
def test_the_answer_goes_by_four_names_and_a_list_gives_its_first(answers: dict[str, Any]) -> None:
    fields = without(INSTRUCTION, "answer", "gold_answer") | answers
    assert question(fields).answer == "yes"


def test_one_question_of_a_document_needs_no_list() -> None:
    found = parsed(QA | {"question": "who built it", "answers": "Osgood"}, 1)
    assert isinstance(found, CompressionRecord)
    assert found.pairs == (("who built it", "Osgood"),)


def test_what_is_left_out_gets_a_name_by_file_and_line() -> None:
    found = question(without(INSTRUCTION, "id", "source", "pos_index"))
    assert (found.id, found.source, found.positives) == ("my.jsonl:7", "", ())
    assert question(INSTRUCTION | {"id": 12, "unknown": {"key": 1}}).id == "12"


@pytest.mark.parametrize(
    ("stage", "change", "kind", "field"),
    [
        (1, {"data_type": None}, "missing", "/data_type"),
        (1, {"data_type": "QA"}, "wrong-value", "/data_type"),
        (1, {"docs": None}, "missing", "/docs"),
        (1, {"docs": []}, "empty", "/docs"),
        (1, {"docs": ["one.", "two."]}, "too-many-documents", "/docs"),
        (1, {"docs": [" \n"]}, "empty", "/docs/0"),
        (1, {"docs": "one."}, "wrong-type", "/docs"),
        (1, {"question": None}, "missing", "/question"),
        (1, {"question": {}}, "wrong-type", "/question"),
        (1, {"question": [], "answers": []}, "empty", "/answers"),
        (1, {"question": ["who", ""]}, "empty", "/question/1"),
        (1, {"question": ["who", 3]}, "wrong-type", "/question/1"),
        (1, {"answers": None}, "missing", "/answers"),
        (1, {"answers": ["Osgood", " "]}, "empty", "/answers/1"),
        (1, {"answers": ["Osgood", None]}, "wrong-type", "/answers/1"),
        (1, {"answers": ["Osgood"]}, "unequal-pairs", "/answers"),
        (2, {"question": None}, "missing", "/question"),
        (2, {"question": "\t"}, "empty", "/question"),
        (2, {"question": 3}, "wrong-type", "/question"),
        (2, {"docs": None}, "missing", "/docs"),
        (2, {"docs": {}}, "wrong-type", "/docs"),
        (2, {"docs": None, "context": []}, "empty", "/context"),
        (2, {"docs": FIVE[:4]}, "too-few-documents", "/docs"),
        (3, {"docs": FIVE[:4]}, "too-few-documents", "/docs"),
        (2, with_document(""), "empty", "/docs/4"),
        (2, with_document(["text"]), "wrong-type", "/docs/4"),
        (2, with_document("a\u0000b"), "control-character", "/docs/4"),
        (2, with_document("a\ud800"), "control-character", "/docs/4"),
        (2, {"answer": None, "gold_answer": None}, "missing", "/answer"),
        (2, {"answer": ""}, "empty", "/answer"),
        (2, {"answer": 1874}, "wrong-type", "/answer"),
        (2, {"answer": None, "answers": []}, "empty", "/answers"),
        (2, {"answer": None, "golden_answers": [1874]}, "wrong-type", "/golden_answers/0"),
        (2, {"pos_index": 2}, "wrong-type", "/pos_index"),
        (2, {"pos_index": [2, 5]}, "out-of-range", "/pos_index/1"),
        (2, {"pos_index": [-1]}, "out-of-range", "/pos_index/0"),
        (2, {"pos_index": ["2"]}, "wrong-type", "/pos_index/0"),
        (2, {"pos_index": [2.0]}, "wrong-type", "/pos_index/0"),
        (2, {"pos_index": [True]}, "wrong-type", "/pos_index/0"),
        (2, {"pos_index": [2, 0, 2]}, "duplicate-position", "/pos_index/2"),
        (2, {"id": ""}, "empty", "/id"),
        (2, {"id": True}, "wrong-type", "/id"),
        (2, {"source": ["harbour"]}, "wrong-type", "/source"),
        (2, {"source": "har\u0007bour"}, "control-character", "/source"),
    ],
)
def test_a_fault_has_its_name_and_its_place(
    stage: int, change: dict[str, Any], kind: str, field: str
) -> None:
    found = faults(VALID[stage] | change, stage)
    assert (kind, field, 7) in [(fault.kind, fault.field, fault.line) for fault in found]
    assert {fault.field.split("/")[1] for fault in found} <= {field.split("/")[1], "question"}


@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        ({"question": ["who"]}, "wrong-value", "/question"),
        ({"answers": []}, "empty", "/answers"),
        ({"answers": [" "]}, "empty", "/answers/0"),
        ({"answers": None}, "missing", "/answers"),
    ],
)
def test_a_paraphrase_asks_nothing_and_says_something(
    change: dict[str, Any], kind: str, field: str
) -> None:
    [fault] = faults(PARAPHRASE | change, 1)
    assert (fault.kind, fault.field) == (kind, field)


def test_all_faults_of_a_record_are_told_at_once() -> None:
    fields = {"question": " ", "docs": ["", 1, "ok", "ok", "ok"], "pos_index": [9, 9]}
    assert [str(fault) for fault in faults(fields, 2)] == [
        "line 7: /docs/0 is empty",
        "line 7: /docs/1 is a number, not a string (1)",
        "line 7: /question is white space",
        "line 7: /answer is missing",
        "line 7: /pos_index/0 is out of range; documents count from 0 to 4 (9)",
        "line 7: /pos_index/1 is out of range; documents count from 0 to 4 (9)",
    ]


@pytest.mark.parametrize(
    ("fields", "stage", "told"),
    [
        (INSTRUCTION, 1, "looks like stage 2 (instruction), not stage 1 (compression)"),
        (END_TO_END, 1, "looks like stage 3 (end to end), not stage 1 (compression)"),
        (QA, 2, "looks like stage 1 (compression), not stage 2 (instruction)"),
        (PARAPHRASE, 3, "looks like stage 1 (compression), not stage 3 (end to end)"),
        (END_TO_END, 2, "looks like stage 3 (end to end), not stage 2 (instruction)"),
    ],
)
def test_a_record_of_another_stage_is_one_fault(
    fields: dict[str, Any], stage: int, told: str
) -> None:
    [fault] = faults(fields, stage)
    assert (fault.kind, fault.field, fault.reason) == (FaultKind.WRONG_STAGE, "", told)


def test_how_many_documents_belong_to_a_question_is_for_the_user_to_say() -> None:
    assert isinstance(parsed(END_TO_END, 2, top_k=8), QuestionRecord)
    assert faults(INSTRUCTION, 2, top_k=8)[0].kind is FaultKind.TOO_FEW_DOCUMENTS


def test_a_value_is_shown_short_and_harmless() -> None:
    [fault] = faults(INSTRUCTION | {"source": "\x1b[31m\x9b" + "x" * 9999}, 2)
    assert len(fault.value) < 2 * VALUE_CHARS
    assert fault.value.isprintable()
    assert fault.value.endswith('…"')


@example(QA, {"id": "\x1f\U00018cd6"}, 1)
@given(
    st.sampled_from([QA, PARAPHRASE, INSTRUCTION, END_TO_END]),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4),
    st.sampled_from([1, 2, 3]),
)
def test_whatever_a_line_holds_gives_faults_or_a_record_that_can_be_trained_on(
    fields: dict[str, Any], change: dict[str, Any], stage: int
) -> None:
    found = parsed(fields | change, stage)
    if isinstance(found, list):
        assert found
        assert all(str(fault).isprintable() for fault in found)
        return
    if isinstance(found, CompressionRecord):
        texts = [found.document, *(text for pair in found.pairs for text in pair)]
        assert bool(found.pairs) != bool(found.restatement)
        texts += [found.restatement] if found.restatement else []
    else:
        texts = [found.question, found.answer, *found.documents]
        assert len(found.documents) >= 5
        assert all(0 <= i < len(found.documents) for i in found.positives)
        assert len(set(found.positives)) == len(found.positives)
    for text in texts:
        assert check_text(text, field="text", max_chars=10_000)
