"""Files of questions to evaluate on, and of passages with restatements: JSON lines -> records."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from clara.errors import InvalidDataset
from clara.evaluation.fields import Fields
from clara.json_lines import decode

SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Record:
    """One question with its candidate passages."""

    id: str
    """The file's own, or the line number where it gives none; one per record."""
    question: str
    golden_answers: tuple[str, ...]
    """Any of them is right; at least one."""
    docs: tuple[str, ...]
    """Candidate passages, in the order of the file."""
    pos_index: tuple[int, ...]
    """Which of `docs` are gold, counted from 0."""
    source: str = ""

    @property
    def gold_answer(self) -> str:
        """The one answer the original scores against."""
        return self.golden_answers[0]

    @property
    def gold_docs(self) -> tuple[str, ...]:
        """The gold passages."""
        return tuple(self.docs[index] for index in self.pos_index)


@dataclass(frozen=True, slots=True)
class Restatement:
    """One passage and the same content in other words."""

    id: str
    passage: str
    text: str
    source: str = ""


def read_records(path: Path, *, limit: int | None = None) -> tuple[Record, ...]:
    """Read questions: `question`, `docs`, `pos_index`, and `golden_answers` or `answer`.

    `id` and `source` may be left out, other fields are passed over, and so are blank lines.

    Args:
        path: .jsonl or .jsonl.gz.
        limit: first records to take; what follows them is not looked at.
    Raises:
        InvalidDataset: the first fault, with file, line, field and reason.
    """
    records = tuple(islice(map(_record, read_fields(path)), limit))
    _require(len(records), path, "question")
    return records


def read_restatements(path: Path, *, limit: int | None = None) -> tuple[Restatement, ...]:
    """Read the records of `data_type` `paraphrase` from a file of the first training stage.

    Raises:
        InvalidDataset: the first fault, with file, line, field and reason.
    """
    wanted = (f for f in read_fields(path) if f.text("data_type", default="qa") == "paraphrase")
    found = tuple(islice(map(_restatement, wanted), limit))
    _require(len(found), path, "restatement")
    return found


def stem(path: Path) -> str:
    """Name of a set: `nq` for `nq.jsonl.gz`."""
    for suffix in reversed(SUFFIXES):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def _record(fields: Fields) -> Record:
    docs = fields.texts("docs", empty=True)
    if "golden_answers" in fields.values:
        answers = fields.texts("golden_answers")
    else:
        answers = (fields.text("answer"),)
    return Record(
        id=fields.id,
        question=fields.text("question"),
        golden_answers=answers,
        docs=docs,
        pos_index=fields.indices("pos_index", below=len(docs)),
        source=fields.text("source", default=""),
    )


def _restatement(fields: Fields) -> Restatement:
    docs, answers = fields.texts("docs"), fields.texts("answers")
    if len(docs) > 1:
        fields.refuse("docs", f"has {len(docs)} passages; one is restated", "Keep the one.")
    return Restatement(fields.id, docs[0], answers[0], fields.text("source", default=""))


def _require(count: int, path: Path, kind: str) -> None:
    if not count:
        refuse(str(path), f"holds no {kind}", "Give another file.")


def read_fields(path: Path, *, named: str | None = None) -> Iterator[Fields]:
    """The objects of a file, each with its place and an id of its own; blank lines are left out.

    Args:
        path: .jsonl or .jsonl.gz.
        named: the field each line must have its id in; None: `id`, or else the line number.
    Raises:
        InvalidDataset: the first fault, when it is reached.
    """
    if not path.name.lower().endswith(SUFFIXES):
        refuse(str(path), "is no file of JSON lines", "Give a .jsonl or .jsonl.gz file.")
    key, seen = named or "id", dict[str, int]()
    for number, line in read_lines(path):
        if line.isspace():
            continue
        where = f"{path}:{number}"
        fields = Fields(where, _object(line, where), None if named else str(number), key)
        first = seen.setdefault(fields.id, number)
        if first != number:
            fields.refuse(key, f"{fields.id!r} is that of line {first} too", "Give each its own.")
        yield fields


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, counted from 1; unpacked where the name ends in .gz.

    Raises:
        InvalidDataset: it is not there, or damaged.
    """
    number = 0
    try:
        packed = path.name.lower().endswith(".gz")
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        where = f"{path}:{number + 1}"
        refuse(where, f"cannot be unpacked: {error}", "Copy or download the file again.")
    except OSError as error:
        refuse(str(path), f"cannot be read: {error.strerror}", "Check that the file exists.")


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        refuse(where, f"is not UTF-8 at byte {error.start}", "Write the file in UTF-8.")
    except (ValueError, RecursionError) as error:
        refuse(where, f"is not JSON: {error}", "Write one JSON object a line.")
    if not isinstance(found, dict):
        refuse(where, "is not a JSON object", "Write one JSON object a line.")
    return found


def refuse(where: str, reason: str, remedy: str) -> NoReturn:
    """Raise InvalidDataset for a file, or for one of its lines."""
    raise InvalidDataset(f"{where} {reason}", field=where, remedy=remedy)
