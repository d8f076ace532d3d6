"""What a training record must be: one JSON object becomes a record, or the list of its faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from clara.errors import InvalidText
from clara.json_lines import type_name
from clara.texts import check_characters
from clara.training.faults import Fault, FaultKind, short
from clara.training.records import CompressionRecord, Kind, QuestionRecord, Record, Stage

DOCUMENTS = ("docs", "context", "content")
"""Names that documents go by; the first that is there counts."""

ANSWERS = ("answer", "answers", "golden_answers", "gold_answer")
"""Names that the answer to learn goes by; the first that is there counts, and of a list its first
entry."""

PAIRED_ANSWERS = ("answers", "answer", "golden_answers", "gold_answer")
"""The same for stage 1, where there are several."""

KINDS: tuple[Kind, ...] = get_args(Kind)


def parse(
    fields: Mapping[str, Any], stage: Stage, *, line: int, name: str, generation_top_k: int
) -> Record | list[Fault]:
    """Read one object as a record of `stage`; keys not named here are passed over.

    Args:
        fields: the object; null counts as not there.
        line: where it stands in its file, from 1.
        name: of the file; gives a record without `id` one.
        generation_top_k: documents the generator reads: all of stage 2, the best of stage 3.
    Returns:
        The record, or every fault of the object.
    """
    reader = _Reader(fields, line)
    other = _looks_like(fields, generation_top_k)
    if other and _is_mixed_up(stage, other):
        reader.fault(FaultKind.WRONG_STAGE, "", f"looks like {other.title}, not {stage.title}")
        return reader.faults
    if stage is Stage.COMPRESSION:
        record: Record = _compression(reader, name)
    else:
        record = _question(reader, name, stage, generation_top_k)
    return reader.faults or record


def _looks_like(fields: Mapping[str, Any], generation_top_k: int) -> Stage | None:
    """The stage whose form an object has, as far as one can tell."""
    question = fields.get("question")
    if isinstance(question, list) or fields.get("data_type") in KINDS:
        return Stage.COMPRESSION
    if not isinstance(question, str) or fields.get("data_type") is not None:
        return None
    _, documents = _first(fields, DOCUMENTS)
    many = isinstance(documents, list) and len(documents) > generation_top_k
    return Stage.END_TO_END if many else Stage.INSTRUCTION


def _is_mixed_up(stage: Stage, other: Stage) -> bool:
    # a question with few documents may belong to stage 3 all the same; counting them says more
    return stage < other or (other is Stage.COMPRESSION and stage is not other)


def _compression(reader: _Reader, name: str) -> CompressionRecord:
    kind = reader.fields.get("data_type")
    documents = reader.documents()
    if len(documents) > 1:
        where, _ = _first(reader.fields, DOCUMENTS)
        reason = f"has {len(documents)} documents; stage 1 compresses one"
        reader.fault(FaultKind.TOO_MANY_DOCUMENTS, f"/{where}", reason)
    if kind is None:
        reader.fault(FaultKind.MISSING, "/data_type", f"is missing; it is {' or '.join(KINDS)}")
    elif kind not in KINDS:
        reader.fault(FaultKind.WRONG_VALUE, "/data_type", f"is not {' or '.join(KINDS)}", kind)
    return CompressionRecord(
        id=reader.id(name),
        source=reader.source(),
        kind="paraphrase" if kind == "paraphrase" else "qa",
        document=documents[0] if documents else "",
        pairs=_pairs(reader) if kind == "qa" else (),
        restatement=_restatement(reader) if kind == "paraphrase" else "",
    )


def _pairs(reader: _Reader) -> tuple[tuple[str, str], ...]:
    questions = reader.texts("question", reader.fields.get("question"))
    where, found = _first(reader.fields, PAIRED_ANSWERS)
    answers = reader.texts(where, found)
    if questions and answers and len(questions) != len(answers):
        reason = f"has {len(answers)} entries for {len(questions)} questions"
        reader.fault(FaultKind.UNEQUAL_PAIRS, f"/{where}", reason)
    return tuple(zip(questions, answers, strict=False))


def _restatement(reader: _Reader) -> str:
    question = reader.fields.get("question")
    if question not in (None, "", [], [""]):
        reason = "is asked in a paraphrase, where it is written as an empty string"
        reader.fault(FaultKind.WRONG_VALUE, "/question", reason, question)
    return reader.first_text(PAIRED_ANSWERS)


def _question(reader: _Reader, name: str, stage: Stage, top_k: int) -> QuestionRecord:
    documents = reader.documents()
    if documents and len(documents) < top_k:
        where, _ = _first(reader.fields, DOCUMENTS)
        reads = "reads" if stage is Stage.INSTRUCTION else "chooses"
        reason = f"has {len(documents)} documents; the generator {reads} {top_k}"
        reader.fault(FaultKind.TOO_FEW_DOCUMENTS, f"/{where}", reason)
    return QuestionRecord(
        id=reader.id(name),
        source=reader.source(),
        question=reader.first_text(("question",)),
        documents=documents,
        answer=reader.first_text(ANSWERS),
        positives=reader.positions("pos_index", len(documents)),
    )


class _Reader:
    """Takes one object apart; what is wrong with it gathers in `faults`."""

    def __init__(self, fields: Mapping[str, Any], line: int) -> None:
        self.fields = fields
        self.line = line
        self.faults: list[Fault] = []

    def fault(self, kind: FaultKind, field: str, reason: str, value: object = None) -> None:
        """Note a fault; `value` None shows none."""
        shown = "" if value is None else short(value)
        self.faults.append(Fault(kind, self.line, field, reason, shown))

    def id(self, name: str) -> str:
        """The record's name; by file and line where it has none."""
        value = self.fields.get("id")
        if value is None:
            return f"{name}:{self.line}"
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text("/id", value)

    def source(self) -> str:
        """The data set, or nothing."""
        value = self.fields.get("source")
        return "" if value is None else self.text("/source", value)

    def documents(self) -> tuple[str, ...]:
        """All of them, in order; faulty ones are there too, so that positions stay."""
        where, value = _first(self.fields, DOCUMENTS)
        if isinstance(value, str):
            self.fault(FaultKind.WRONG_TYPE, f"/{where}", "is a string, not a list", value)
            return ()
        return self.texts(where, value)

    def texts(self, name: str, value: object) -> tuple[str, ...]:
        """A list of texts, at least one; a single text is a list of one."""
        values = [value] if isinstance(value, str) else value
        if value is None:
            self.fault(FaultKind.MISSING, f"/{name}", "is missing")
        elif not isinstance(values, list):
            reason = f"is {type_name(value)}, not a list"
            self.fault(FaultKind.WRONG_TYPE, f"/{name}", reason, value)
        elif not values:
            self.fault(FaultKind.EMPTY, f"/{name}", "is empty")
        else:
            return tuple([self.text(f"/{name}/{i}", entry) for i, entry in enumerate(values)])
        return ()

    def first_text(self, names: Sequence[str]) -> str:
        """The text of the first name that is there; of a list, its first entry."""
        where, value = _first(self.fields, names)
        if isinstance(value, list) and where != "question":
            return next(iter(self.texts(where, value[:1])), "")
        if value is None:
            self.fault(FaultKind.MISSING, f"/{where}", "is missing")
            return ""
        return self.text(f"/{where}", value)

    def text(self, field: str, value: object) -> str:
        """A text that says something and can be stored; what is no text comes back empty."""
        if not isinstance(value, str):
            reason = f"is {type_name(value)}, not a string"
            self.fault(FaultKind.WRONG_TYPE, field, reason, value)
            return ""
        if not value or value.isspace():
            self.fault(FaultKind.EMPTY, field, "is white space" if value else "is empty")
        try:
            check_characters(value, field="")
        except InvalidText as error:
            self.fault(FaultKind.CONTROL_CHARACTER, field, error.message.strip(), value)
        return value

    def positions(self, name: str, count: int) -> tuple[int, ...]:
        """Different numbers from 0 below `count`; none where the name is not there."""
        value = self.fields.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fault(
                FaultKind.WRONG_TYPE, f"/{name}", f"is {type_name(value)}, not a list", value
            )
            return ()
        found: list[int] = []
        for i, entry in enumerate(value):
            field = f"/{name}/{i}"
            if not isinstance(entry, int) or isinstance(entry, bool):
                self.fault(FaultKind.WRONG_TYPE, field, "is not an integer", entry)
            elif count and not 0 <= entry < count:
                reason = f"is out of range; documents count from 0 to {count - 1}"
                self.fault(FaultKind.OUT_OF_RANGE, field, reason, entry)
            elif entry in found:
                self.fault(FaultKind.DUPLICATE_POSITION, field, f"names document {entry} again")
            else:
                found.append(entry)
        return tuple(found)


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> tuple[str, Any]:
    """The first name with a value, and the value; without any, the usual name and None."""
    for name in names:
        if fields.get(name) is not None:
            return name, fields[name]
    return names[0], None
