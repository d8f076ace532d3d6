from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clara.errors import InvalidDataset
from clara.evaluation.retrieval_data import SearchSet, read_beir, read_candidates, read_sets

CORPUS = {
    "tea": "Tea reached the market in 1723 with a ship from Canton.",
    "wall": "The harbour wall was built in 1874.",
    "bees": "Honey bees dance on the comb.",
    "ice": "Sea ice forms when salt water cools.",
    "more": "The harbour has another wall.",
}
QUESTIONS = {"1": "ship from Canton", "2": "harbour wall", "3": "nobody judged this"}
HEAD = "query-id\tcorpus-id\tscore\n"
QRELS = HEAD + "1\ttea\t1\n2\twall\t1\n2\tmore\t2\n2\tice\t0\n9\tbees\t1\n"


def jsonl(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def write(path: Path, text: str) -> Path:
    """Gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def beir(folder: Path, *, packed: str = "", qrels: str = "qrels.tsv") -> Path:
    """A folder as BEIR lays it out."""
    corpus = ({"_id": k, "title": k.title(), "text": v} for k, v in CORPUS.items())
    write(folder / f"corpus.jsonl{packed}", jsonl(corpus))
    queries = ({"_id": k, "text": v} for k, v in QUESTIONS.items())
    write(folder / f"queries.jsonl{packed}", jsonl(queries))
    write(folder / f"{qrels}{packed}", QRELS)
    return folder


def named(data: SearchSet) -> dict[str, dict[str, float]]:
    """Grades by question and passage, the passages by title or else by text."""
    names = {one.id: one.title or one.text for one in data.passages}
    return {q.text: {names[p]: grade for p, grade in q.grades.items()} for q in data.questions}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("qrels", ["qrels.tsv", "qrels/test.tsv"])
def test_a_folder_of_beirs_is_read_with_its_grades(tmp_path: Path, packed: str, qrels: str) -> None:
    (data,) = read_sets(beir(tmp_path / "scifact", packed=packed, qrels=qrels))
    assert (data.name, data.unknown) == ("scifact", 0)
    assert [(one.title, one.text) for one in data.passages] == [
        (name.title(), text) for name, text in CORPUS.items()
    ]
    assert named(data) == {
        "ship from Canton": {"Tea": 1.0},
        "harbour wall": {"Wall": 1.0, "More": 2.0},
    }
    assert all(question.among is None for question in data.questions)


def test_judgements_need_no_line_of_names_and_the_last_of_two_counts(tmp_path: Path) -> None:
    qrels = "\ufeff1\ttea\t1\r\n\n1\twall\t2\n1\twall\t1\n2\twall\t1\n2\twall\t0\n"
    write(beir(tmp_path) / "qrels.tsv", qrels)
    assert named(read_beir(tmp_path)) == {"ship from Canton": {"Tea": 1.0, "Wall": 1.0}}


def test_a_part_of_a_corpus_holds_the_answers_of_the_questions_that_are_asked(
    tmp_path: Path,
) -> None:
    folder = beir(tmp_path)
    assert [one.title for one in read_beir(folder, passages=1).passages] == ["Tea", "Wall", "More"]
    part = read_beir(folder, limit=1, passages=3)
    assert [one.title for one in part.passages] == ["Tea", "Wall", "Bees"]
    assert list(named(part)) == ["ship from Canton"]


def test_a_limit_leaves_what_is_searched_as_it_is(tmp_path: Path) -> None:
    (part,) = read_sets(beir(tmp_path), limit=1)
    assert (len(part.questions), len(part.passages)) == (1, len(CORPUS))


def test_passages_without_a_word_or_without_a_line_are_told_and_never_found(
    tmp_path: Path,
) -> None:
    corpus = jsonl([{"_id": "tea", "text": " "}, {"_id": 7, "title": "Seven", "text": ""}])
    write(beir(tmp_path) / "corpus.jsonl", corpus)
    write(tmp_path / "qrels.tsv", "1\ttea\t1\n1\tgone\t1\n1\t7\t1\n")
    data = read_beir(tmp_path)
    assert [one.title for one in data.passages] == ["Seven"]
    assert (len(data.questions[0].grades), data.unknown) == (3, 2)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus.jsonl", None, r"holds no corpus\.jsonl"),
        ("queries.jsonl", None, r"holds no queries\.jsonl"),
        ("qrels.tsv", None, r"holds no qrels\.tsv"),
        ("corpus.jsonl", '{"text": "no name"}\n', r"corpus\.jsonl:1: /_id is missing"),
        ("corpus.jsonl", '{"_id": "a", "text": 1}\n', r"/text is a number, not a string"),
        ("corpus.jsonl", '{"_id": "a"}\n{"_id": "a"}\n', r"/_id 'a' is that of line 1 too"),
        ("queries.jsonl", '{"_id": "1", "text": ""}\n', r"queries\.jsonl:1: /text is empty"),
        ("queries.jsonl", "[]\n", r"queries\.jsonl:1 is not a JSON object"),
        ("queries.jsonl", '{"_id": "8", "text": "b"}\n', "holds no question with a passage"),
        ("qrels.tsv", HEAD, "holds no question with a passage"),
        ("qrels.tsv", HEAD + "1 tea 1\n", r"qrels\.tsv:2 has 1 columns, not 3"),
        ("qrels.tsv", HEAD + "1\ttea\tyes\n", r"qrels\.tsv:2 has the grade 'yes'"),
        ("qrels.tsv", HEAD + "1\ttea\tnan\n", r"qrels\.tsv:2 has the grade 'nan'"),
    ],
)
def test_a_fault_is_named_with_its_place(
    tmp_path: Path, file: str, text: str | None, message: str
) -> None:
    path = beir(tmp_path) / file
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(InvalidDataset, match=message):
        read_sets(tmp_path)


def test_damaged_judgements_are_told(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    (folder / "qrels.tsv").write_bytes(b"1\t\xff\t1\n")
    with pytest.raises(InvalidDataset, match=r"qrels\.tsv:1 is not UTF-8 at byte 2"):
        read_beir(folder)
    (folder / "qrels.tsv").rename(folder / "qrels.tsv.gz")
    with pytest.raises(InvalidDataset, match=r"qrels\.tsv\.gz:1 cannot be unpacked"):
        read_beir(folder)


DOCS = ["Tea came in 1723.", "Osgood built the wall.", "Sea ice forms."]


def candidates(path: Path, *changed: Mapping[str, Any]) -> Path:
    records = [
        {"question": "Who built it?", "docs": DOCS, "pos_index": [1]},
        {"question": "Nobody knows", "docs": ["A fourth."], "pos_index": []},
        {"question": "When?", "docs": ["A fifth.", DOCS[0]], "pos_index": [1, 0]},
        *changed,
    ]
    return write(path, jsonl(records))


@pytest.mark.parametrize("name", ["nq.jsonl", "nq.jsonl.gz"])
def test_the_passages_of_a_files_questions_are_searched_together(tmp_path: Path, name: str) -> None:
    (data,) = read_sets(candidates(tmp_path / name))
    assert (data.name, data.unknown) == ("nq", 0)
    assert [one.text for one in data.passages] == [*DOCS, "A fourth.", "A fifth."]
    assert named(data) == {
        "Who built it?": {DOCS[1]: 1.0},
        "When?": {DOCS[0]: 1.0, "A fifth.": 1.0},
    }
    (part,) = read_sets(tmp_path / name, limit=1)
    assert (len(part.questions), part.passages) == (1, data.passages)


def test_a_question_may_be_kept_to_its_own_candidates(tmp_path: Path) -> None:
    data = read_candidates(candidates(tmp_path / "nq.jsonl"), own=True)
    texts = {one.id: one.text for one in data.passages}
    assert [{texts[id_] for id_ in q.among or ()} for q in data.questions] == [
        set(DOCS),
        {"A fifth.", DOCS[0]},
    ]


def test_a_folder_of_files_is_one_set_for_each(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz"):
        candidates(tmp_path / name)
    write(tmp_path / "README.md", "about")
    assert [one.name for one in read_sets(tmp_path)] == ["a", "b"]
    candidates(tmp_path / "a.jsonl")
    with pytest.raises(InvalidDataset, match="has the name of another file"):
        read_sets(tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"docs": ["a"], "pos_index": [0]}, "/question is missing"),
        ({"question": "Who?", "pos_index": [0]}, "/docs is missing"),
        ({"question": "Who?", "docs": ["a"], "pos_index": [1]}, "/pos_index/0 is 1"),
        ({"question": ["Who?"], "docs": ["a"], "pos_index": []}, "/question is a list, not a"),
    ],
)
def test_a_faulty_record_is_named(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidDataset, match=f"nq.jsonl:4: .*{message[1:]}"):
        read_sets(candidates(tmp_path / "nq.jsonl", record))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "gone", "is not there"),
        (lambda folder: folder, "holds neither a corpus nor files of candidates"),
        (lambda folder: write(folder / "a.txt", ""), "is no file of JSON lines"),
        (lambda folder: write(folder / "a.jsonl", "\n"), "holds no question"),
    ],
)
def test_a_place_without_a_question_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(InvalidDataset, match=message):
        read_sets(make(tmp_path))


def test_a_corpus_has_no_candidates_of_a_questions_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="have no passages of their own"):
        read_sets(beir(tmp_path), own=True)
