"""Files of training records: read for training, and checked before any model is touched."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

from clara.errors import InvalidDataset
from clara.passages import FastTokenizer
from clara.texts import printable
from clara.training.faults import Fault, FaultKind
from clara.training.lines import read_objects
from clara.training.measures import Measures
from clara.training.records import CompressionRecord, QuestionRecord, Record, Stage
from clara.training.report import Note, Report
from clara.training.rules import parse

DOC_MAX_LENGTH = 256
"""Tokens the published compressors read of a document."""

GENERATION_TOP_K = 5
"""Documents the published generators answer from."""

FIRST_FAULTS = 20
"""Faults that reading for training names before it gives up."""

Paths: TypeAlias = Path | Sequence[Path]


@overload
def read(
    paths: Paths,
    stage: Literal[Stage.COMPRESSION],
    *,
    limit: int | None = ...,
    exclude_sources: Collection[str] = ...,
    generation_top_k: int = ...,
) -> list[CompressionRecord]: ...
@overload
def read(
    paths: Paths,
    stage: Literal[Stage.INSTRUCTION, Stage.END_TO_END],
    *,
    limit: int | None = ...,
    exclude_sources: Collection[str] = ...,
    generation_top_k: int = ...,
) -> list[QuestionRecord]: ...
@overload
def read(
    paths: Paths,
    stage: Stage,
    *,
    limit: int | None = ...,
    exclude_sources: Collection[str] = ...,
    generation_top_k: int = ...,
) -> list[CompressionRecord] | list[QuestionRecord]: ...
def read(
    paths: Paths,
    stage: Stage,
    *,
    limit: int | None = None,
    exclude_sources: Collection[str] = (),
    generation_top_k: int = GENERATION_TOP_K,
) -> list[Any]:
    """All records of one or more files, in their order; equal documents are one string in memory.

    Args:
        paths: .jsonl or .jsonl.gz.
        stage: which form the records must have.
        limit: records to stop after, at least 1.
        exclude_sources: values of `source` whose records are passed over, right or wrong.
        generation_top_k: documents the generator reads.
    Raises:
        InvalidDataset: faults, the first FIRST_FAULTS of them named with file, line and field; or
            no record at all.
        InvalidInput: a file that is not there, or of another kind.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    records: list[Record] = []
    faults: list[tuple[str, Fault]] = []
    known: dict[str, str] = {}
    for path, found in _through(files, stage, frozenset(exclude_sources), generation_top_k):
        if isinstance(found, Fault):
            faults.append((printable(str(path)), found))
        else:
            records.append(_sharing(found, known))
        if len(faults) == FIRST_FAULTS or len(records) == limit:
            break
    if not faults:
        chosen = _without_choice(records, generation_top_k)
        name = printable(", ".join(map(str, files)))
        faults = [(name, fault) for fault in _as_a_whole(stage, len(records), chosen)]
    if faults:
        raise _refusal(faults, stage)
    return records


def check(
    path: Path,
    stage: Stage,
    *,
    tokenizer: FastTokenizer | None = None,
    doc_max_length: int = DOC_MAX_LENGTH,
    generation_top_k: int = GENERATION_TOP_K,
) -> Report:
    """Look at every line of a file, whatever is wrong with the ones before.

    Args:
        path: .jsonl or .jsonl.gz.
        stage: which form the records must have.
        tokenizer: of the base that will be trained; without it lengths are in words.
        doc_max_length: tokens the compressor reads of a document or a question.
        generation_top_k: documents the generator reads.
    Raises:
        InvalidInput: no such file, or of another kind.
    """
    unit = "tokens" if tokenizer else "words"
    report = Report(path=path, stage=stage, unit=unit, doc_max_length=doc_max_length)
    measures = Measures(report, tokenizer, generation_top_k)
    for _, found in _through([path], stage, frozenset(), generation_top_k):
        if isinstance(found, Fault):
            report.add(found)
        else:
            measures.add(found)
    measures.finish()
    for fault in _as_a_whole(stage, report.records, report.notes[Note.NOTHING_TO_CHOOSE]):
        report.add(fault)
    return report


def _through(
    files: Sequence[Path], stage: Stage, exclude: Collection[str], generation_top_k: int
) -> Iterator[tuple[Path, Record | Fault]]:
    """Every record and every fault, in the order of the files."""
    for path in files:
        for found in read_objects(path):
            if isinstance(found, Fault):
                yield path, found
                continue
            line, fields = found
            source = fields.get("source")
            if isinstance(source, str) and source in exclude:
                continue
            parsed = parse(
                fields, stage, line=line, name=path.name, generation_top_k=generation_top_k
            )
            for item in parsed if isinstance(parsed, list) else [parsed]:
                yield path, item


def _sharing(record: Record, known: dict[str, str]) -> Record:
    """The record with documents that earlier records hold too taken from there."""
    if isinstance(record, CompressionRecord):
        return record
    documents = tuple(known.setdefault(document, document) for document in record.documents)
    return replace(record, documents=documents)


def _without_choice(records: Sequence[Record], generation_top_k: int) -> int:
    """Records with no more documents than are chosen."""
    questions = (record for record in records if isinstance(record, QuestionRecord))
    return sum(len(record.documents) <= generation_top_k for record in questions)


def _as_a_whole(stage: Stage, records: int, without_choice: int) -> Iterator[Fault]:
    """What is wrong with a file none of whose lines shows it."""
    if not records:
        yield Fault(FaultKind.NO_USABLE_RECORD, None, "", "holds no usable record")
    elif stage is Stage.END_TO_END and without_choice == records:
        reason = (
            f"looks like {Stage.INSTRUCTION.title}, not {stage.title}: no record has more "
            "documents than the generator reads, so there is nothing to choose"
        )
        yield Fault(FaultKind.WRONG_STAGE, None, "", reason)


def _refusal(faults: Sequence[tuple[str, Fault]], stage: Stage) -> InvalidDataset:
    path, first = faults[0]
    more = len(faults) == FIRST_FAULTS
    told = "\n".join(f"  {path}: {fault}" for path, fault in faults)
    return InvalidDataset(
        f"{'at least ' if more else ''}{len(faults)} "
        f"{'fault' if len(faults) == 1 else 'faults'} in the records of {stage.title}:\n{told}",
        field=f"{path}:{first.line}" if first.line else path,
        remedy=f"`clara data check FILE --stage {stage.value}` lists every fault.",
    )
