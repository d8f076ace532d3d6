"""Questions, the passages to search, and which of them answer: folders of two kinds.

As BEIR lays a set out: `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`)
and `qrels.tsv` or `qrels/test.tsv` (question, passage, grade; one of 0 or less is no answer). Or
files of candidates, as `clara evaluate` reads them: `question`, `docs`, `pos_index`. Each may be
gzipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import UUID, uuid5

from clara.evaluation.datasets import SUFFIXES, read_fields, read_lines, refuse, stem
from clara.evaluation.fields import Fields
from clara.pipeline.reading import reading
from clara.types import PassageText

NAMESPACE = UUID(int=7)
"""Of passage ids, which depend on a passage's name alone: equal scores are ordered by them."""

CORPUS = ("corpus.jsonl", "corpus.jsonl.gz")
QUERIES = ("queries.jsonl", "queries.jsonl.gz")
QRELS = ("qrels.tsv", "qrels.tsv.gz", "qrels/test.tsv", "qrels/test.tsv.gz")


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the passages that answer it."""

    text: str
    grades: Mapping[UUID, float]
    """Of the passages that answer it, at least one; a higher grade is a better answer."""
    among: frozenset[UUID] | None = None
    """What is searched for it, where that is not every passage."""


@dataclass(frozen=True)
class SearchSet:
    """What is searched, and what for."""

    name: str
    passages: Sequence[PassageText]
    questions: Sequence[Question]
    unknown: int = 0
    """Passages that answer a question and are not among those searched: nothing finds them."""


def read_sets(place: Path, *, limit: int | None = None, own: bool = False) -> list[SearchSet]:
    """Every set of a folder: the one that BEIR's files make up, or one for each file of candidates.

    Args:
        place: a folder, or one file of candidates.
        limit: first questions of each set; what is searched stays the same.
        own: search only a question's own candidates, not those of the whole file.
    Raises:
        InvalidDataset: the first fault, or nothing to ask.
    """
    if not place.exists():
        refuse(str(place), "is not there", "Name a folder, or a file of candidates.")
    if place.is_file():
        return [read_candidates(place, limit=limit, own=own)]
    if any((place / name).exists() for name in CORPUS + QUERIES):
        if own:
            remedy = "Give files with `docs`, or search all."
            refuse(str(place), "is a corpus: its questions have no passages of their own", remedy)
        return [read_beir(place, limit=limit)]
    files = [path for path in sorted(place.iterdir()) if path.name.lower().endswith(SUFFIXES)]
    if not files:
        remedy = f"Give a folder with {CORPUS[0]}, {QUERIES[0]} and {QRELS[0]}, or with such files."
        refuse(str(place), "holds neither a corpus nor files of candidates", remedy)
    sets: dict[str, SearchSet] = {}
    for path in files:
        if stem(path) in sets:
            refuse(str(path), "has the name of another file", "Rename one of them.")
        sets[stem(path)] = read_candidates(path, limit=limit, own=own)
    return list(sets.values())


def read_beir(folder: Path, *, limit: int | None = None, passages: int | None = None) -> SearchSet:
    """A set as BEIR lays it out. A question without a passage that answers it is left out.

    Args:
        folder: of the files.
        limit: first questions; None for all.
        passages: first passages, and every one that answers a question; None for all.
    Raises:
        InvalidDataset: the first fault, or nothing to ask.
    """
    judged = _judged(_one_of(folder, QRELS))
    asked = (
        Question(fields.text("text"), judged[fields.id])
        for fields in read_fields(_one_of(folder, QUERIES), named="_id")
        if fields.id in judged
    )
    questions = list(islice(asked, limit))
    _require(questions, folder)
    wanted = set[UUID]().union(*(question.grades for question in questions))
    corpus = map(_passage, read_fields(_one_of(folder, CORPUS), named="_id"))
    found = [
        passage
        for at, passage in enumerate(corpus)
        if (passages is None or at < passages or passage.id in wanted) and _says_something(passage)
    ]
    unknown = len(wanted - {passage.id for passage in found})
    return SearchSet(folder.resolve().name, found, questions, unknown)


def read_candidates(path: Path, *, limit: int | None = None, own: bool = False) -> SearchSet:
    """A file of candidates: the passages of all its questions are searched together.

    A question's few candidates are found by any search that returns as many, so that recall among
    them says little; with `own` they are all that is searched, as by a re-ranking. Equal passages
    are one. A question without a gold passage is left out, its candidates are not.

    Args:
        path: .jsonl or .jsonl.gz.
        limit: first questions; None for all.
        own: search only a question's own candidates.

    Raises:
        InvalidDataset: the first fault, or nothing to ask.
    """
    passages: dict[UUID, PassageText] = {}
    questions: list[Question] = []
    for fields in read_fields(path):
        found = [_whole(text) for text in fields.texts("docs", empty=True)]
        passages.update((passage.id, passage) for passage in found)
        gold = {found[at].id: 1.0 for at in fields.indices("pos_index", below=len(found))}
        among = frozenset(passage.id for passage in found) if own else None
        asked = Question(fields.text("question"), gold, among)
        if gold and (limit is None or len(questions) < limit):
            questions.append(asked)
    _require(questions, path)
    return SearchSet(stem(path), list(passages.values()), questions)


def _judged(path: Path) -> dict[str, dict[UUID, float]]:
    """Grades above 0 by question and passage; of two for one pair, the last."""
    found: dict[str, dict[UUID, float]] = {}
    for question, passage, grade in _judgements(path):
        if grade > 0:
            found.setdefault(question, {})[_id(passage)] = grade
        elif question in found:
            found[question].pop(_id(passage), None)
    return {question: grades for question, grades in found.items() if grades}


def _judgements(path: Path) -> Iterator[tuple[str, str, float]]:
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        try:
            parts = line.decode("utf-8-sig").rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            refuse(where, f"is not UTF-8 at byte {error.start}", "Write the file in UTF-8.")
        if parts == [""]:
            continue
        if len(parts) != 3:
            remedy = "Write question, passage and grade with a tab between them."
            refuse(where, f"has {len(parts)} columns, not 3", remedy)
        grade = _number(parts[2])
        if grade is not None:
            yield parts[0], parts[1], grade
        elif number > 1:  # the first line may name the columns
            refuse(where, f"has the grade {parts[2]!r}, which is no number", "Write 0, 1, 2, ...")


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _passage(fields: Fields) -> PassageText:
    id_ = _id(fields.id)
    return PassageText(id_, id_, fields.string("title"), fields.string("text"))


def _says_something(passage: PassageText) -> bool:
    """Some published corpora hold passages without a word; no search finds them."""
    return bool(reading(passage.title, passage.text).strip())


def _whole(text: str) -> PassageText:
    """A candidate, which may begin with a title: it is read as it stands."""
    id_ = _id(text)
    return PassageText(id_, id_, "", text)


def _id(name: str) -> UUID:
    return uuid5(NAMESPACE, name)


def _one_of(folder: Path, names: Sequence[str]) -> Path:
    found = next((folder / name for name in names if (folder / name).exists()), None)
    if found is None:
        refuse(str(folder), f"holds no {names[0]}", f"Give a folder with {' or '.join(names)}.")
    return found


def _require(questions: Sequence[Question], place: Path) -> None:
    if not questions:
        refuse(str(place), "holds no question with a passage that answers it", "Give another set.")
