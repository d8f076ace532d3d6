"""`clara data check`: what is wrong with files of training records, and what they hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from clara.errors import InvalidInput
from clara.passages import FastTokenizer
from clara.texts import printable
from clara.training.data import check
from clara.training.records import Stage
from clara.training.report import Lengths, Note, Report

BAR_WIDTH = 40
"""Characters of the longest bar of a histogram."""

LONG = (Note.LONG_DOCUMENTS, Note.LONG_QUESTIONS)


def check_files(
    files: Sequence[Path],
    stage: Stage,
    console: Console,
    *,
    base: Path | None,
    doc_max_length: int,
    generation_top_k: int,
    max_faults: int,
    out: Path | None,
) -> bool:
    """Check each file by itself, show what was found, and write all of it to `out`.

    Args:
        base: folder of a base model, to count tokens; without it lengths are in words.
        max_faults: faults shown of each file; `out` has them all.
        out: JSON, or nothing.
    Returns:
        Whether training may read every one of the files.
    Raises:
        ClaraError: a file or the tokenizer cannot be read, or `out` not be written.
    """
    tokenizer = FastTokenizer.from_folder(base) if base else None
    reports: list[Report] = []
    for path in files:
        with console.status(f"checking {printable(path.name)}"):
            report = check(
                path,
                stage,
                tokenizer=tokenizer,
                doc_max_length=doc_max_length,
                generation_top_k=generation_top_k,
            )
        show(report, console, max_faults=max_faults)
        reports.append(report)
    if out:
        _write(out, reports)
    return all(report.ok for report in reports)


def show(report: Report, console: Console, *, max_faults: int) -> None:
    """One file: counts, faults with their places, then what is no fault, then lengths."""
    path = printable(str(report.path))
    console.print(Text(f"{path}, {report.stage.title}", style="bold cyan"))
    console.print(Text(_summary(report), style="green" if report.ok else "red"))
    if report.faults:
        _show_faults(report, console, max_faults)
    for note in _notes(report):
        console.print(Text(f"  {note}", style="yellow"))
    console.print(Text(_contents(report)))
    for name, lengths in report.lengths.items():
        console.print(histogram(name, lengths, report.unit))


def histogram(name: str, lengths: Lengths, unit: str) -> RenderableType:
    """Bars for the bins that hold texts and those between them, under a line of figures."""
    bins = lengths.bins()
    filled = [i for i, (_, _, texts) in enumerate(bins) if texts]
    most = max((texts for _, _, texts in bins), default=0)
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    for low, high, texts in bins[filled[0] : filled[-1] + 1] if filled else []:
        label = f"{low}-{high}" if high is not None else f"{low} or more"
        table.add_row(f"  {label}", f"{texts:,}", Bar(most, 0, texts, width=BAR_WIDTH))
    title = (
        f"{name}: {lengths.total:,}, in {unit}: median {lengths.quantile(0.5)}, "
        f"mean {lengths.mean:.0f}, 95 % up to {lengths.quantile(0.95)}, longest {lengths.longest}"
    )
    return Group(Text(title, style="bold"), table)


def _summary(report: Report) -> str:
    faults = report.fault_counts.total()
    if not faults:
        return f"{_many(report.records, 'record')}, no faults"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.fault_counts.most_common())
    lines = f" in {_many(report.faulty_lines, 'line')}" if report.faulty_lines else ""
    return f"{_many(report.records, 'record')}; {_many(faults, 'fault')}{lines}: {kinds}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _show_faults(report: Report, console: Console, most: int) -> None:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("line", justify="right")
    table.add_column("field", overflow="fold")
    table.add_column("fault", overflow="fold")
    table.add_column("value", overflow="ellipsis", no_wrap=True)
    for fault in report.faults[:most]:
        line = str(fault.line) if fault.line else "all"
        table.add_row(line, Text(fault.field), Text(fault.reason), Text(fault.value))
    console.print(table)
    left = report.fault_counts.total() - min(most, len(report.faults))
    if left:
        console.print(Text(f"and {left:,} more: --max-faults shows more, --json writes them all"))


def _notes(report: Report) -> list[str]:
    found = []
    for note in Note:
        count = report.notes[note]
        if count:
            limit = f" of {report.doc_max_length} tokens" if note in LONG else ""
            at_least = "at least " if note in LONG and report.unit == "words" else ""
            found.append(f"{at_least}{count:,} of {_total(report, note):,} {note.value}{limit}")
    return found


def _total(report: Report, note: Note) -> int:
    """How many there are of what a note counts; its first word says what that is."""
    counted = report.lengths.get(note.value.split()[0])
    return counted.total if counted else report.records


def _contents(report: Report) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in report.kinds.most_common())
    sources = ", ".join(
        f"{printable(source) or '(none)'} {count:,}"
        for source, count in report.sources.most_common()
    )
    documents = ", ".join(
        f"{number} in {count:,}" for number, count in sorted(report.documents_per_record.items())
    )
    parts = {"kinds": kinds, "documents of a record": documents, "sources": sources}
    return "\n".join(f"{name}: {value}" for name, value in parts.items() if value)


def _write(out: Path, reports: Sequence[Report]) -> None:
    content = {
        "ok": all(report.ok for report in reports),
        "files": [report.as_dict() for report in reports],
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"{out} cannot be written: {error.strerror}",
            field="--json",
            remedy="Name a file in a folder that may be written.",
        ) from error
