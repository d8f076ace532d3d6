"""Counts of valid records that are no faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from clara.passages import FastTokenizer
from clara.training.data import check
from clara.training.measures import holds
from clara.training.records import Stage
from clara.training.report import Note, Report
from tests.clara.training.files import END_TO_END, FIVE, INSTRUCTION, PARAPHRASE, QA, write


def counted(path: Path, lines: list[dict[str, Any]], stage: int, **limits: Any) -> Report:
    found = check(write(path / "a.jsonl", lines), Stage(stage), **limits)
    assert found.ok, found.faults
    return found


def notes(found: Report) -> dict[str, int]:
    return {note.name: count for note, count in found.notes.items() if count}


def characters() -> FastTokenizer:
    """One token for every character but white space."""
    pieces = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))  # noqa: S106 - no password
    pieces.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    return FastTokenizer(pieces)


def test_nothing_is_noted_of_plain_records(tmp_path: Path) -> None:
    assert notes(counted(tmp_path, [QA, PARAPHRASE], 1)) == {}
    assert notes(counted(tmp_path, [INSTRUCTION], 2)) == {}
    assert notes(counted(tmp_path, [END_TO_END], 3)) == {}


def test_texts_over_the_limit_are_counted_one_by_one(tmp_path: Path) -> None:
    long = [f"{FIVE[0]} and more", f"{FIVE[1]} and so do I", *FIVE[2:]]
    other = INSTRUCTION | {"id": "other"}
    found = counted(tmp_path, [INSTRUCTION | {"docs": long}, other], 2, doc_max_length=4)
    assert notes(found) == {"LONG_DOCUMENTS": 2}
    lines = [INSTRUCTION | {"question": "who built this old wall"}]
    assert notes(counted(tmp_path, lines, 2, doc_max_length=4)) == {"LONG_QUESTIONS": 1}


def test_a_text_of_just_the_limit_is_not_over_it(tmp_path: Path) -> None:
    tokens = len("".join(max(FIVE, key=len).split()))
    for limit, over in ((tokens, 0), (tokens - 1, FIVE.count(max(FIVE, key=len)))):
        found = counted(tmp_path, [INSTRUCTION], 2, doc_max_length=limit, tokenizer=characters())
        assert found.notes[Note.LONG_DOCUMENTS] == over


def test_lengths_are_in_words_or_in_the_tokens_of_a_base(tmp_path: Path) -> None:
    found = counted(tmp_path, [QA, PARAPHRASE], 1)
    assert found.unit == "words"
    assert {name: lengths.total for name, lengths in found.lengths.items()} == {
        "documents": 2,
        "questions": 2,
        "answers": 2,
        "restatements": 1,
    }
    assert sorted(found.lengths["answers"].counts.elements()) == [1, 2]
    found = counted(tmp_path, [QA, PARAPHRASE], 1, tokenizer=characters())
    assert found.unit == "tokens"
    assert sorted(found.lengths["answers"].counts.elements()) == [4, 14]


def test_repetitions_are_told_apart(tmp_path: Path) -> None:
    other = {"question": "who else built it"}
    assert notes(counted(tmp_path, [INSTRUCTION, INSTRUCTION | other], 2)) == {"REPEATED_IDS": 1}
    renamed = INSTRUCTION | {"id": "b", "source": "elsewhere"}
    assert notes(counted(tmp_path, [INSTRUCTION, renamed], 2)) == {"REPEATED_RECORDS": 1}
    twice = INSTRUCTION | {"docs": [*FIVE[:4], FIVE[0]]}
    assert notes(counted(tmp_path, [twice], 2)) == {"REPEATED_DOCUMENTS": 1}
    assert notes(counted(tmp_path, [QA, QA], 1)) == {"REPEATED_IDS": 1, "REPEATED_RECORDS": 1}


def test_records_that_teach_less_than_they_could_are_counted(tmp_path: Path) -> None:
    unknown = {"pos_index": []}
    assert notes(counted(tmp_path, [INSTRUCTION | unknown], 2)) == {"NO_POSITIVES": 1}
    few = INSTRUCTION | {"id": "few"}
    lines = [END_TO_END, END_TO_END | {"id": "b", "question": "who"}, few]
    assert notes(counted(tmp_path, lines, 3)) == {"UNEQUAL_CANDIDATES": 1, "NOTHING_TO_CHOOSE": 1}


def test_answers_that_stand_nowhere_are_counted(tmp_path: Path) -> None:
    assert notes(counted(tmp_path, [INSTRUCTION | {"answer": "Hall"}], 2)) == {
        "ANSWERS_ELSEWHERE": 1
    }
    moved = INSTRUCTION | {"pos_index": [0]}
    assert notes(counted(tmp_path, [moved], 2)) == {}
    both = QA | {"answers": ["nobody", "1875"]}
    assert notes(counted(tmp_path, [both], 1)) == {"ANSWERS_ELSEWHERE": 2}


@pytest.mark.parametrize(
    ("document", "answer", "held"),
    [
        ("Wilhelm Conrad Röntgen was first.", "wilhelm conrad rontgen", True),
        ("Osgood's wall, of 1874.", "Osgood", True),
        ("It holds 1,234 people.", "1,234", True),
        ("It holds 11,234 people.", "1,234", False),
        ("The northern wall", "north", False),
        ("The wall\nof the harbour", "wall of  the harbour", True),
        ("北京是中国的首都", "中国", True),
        ("It rose by 5 %", "%", True),
        ("It rose", "%", False),
        ("It rose", "Yes", True),
        ("It rose", "no.", True),
    ],
)
def test_an_answer_is_looked_for_as_whole_words(document: str, answer: str, held: bool) -> None:
    assert holds(["Another.", document], answer) is held


@given(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=4), st.data())
def test_a_document_holds_its_own_words(words: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    assert holds([" ".join(words)], " ".join(words[first:]))
