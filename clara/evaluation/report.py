"""Results of evaluations: written to files, read back, and shown as a table or a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.table import Table
from rich.text import Text

from clara.errors import InvalidInput

Results = Mapping[str, Mapping[str, Any]]
"""The numbers of each set, by its name: what `clara evaluate --json` writes."""


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a set."""

    key: str
    heading: str
    percent: bool = True
    """Shown as a percentage."""
    interval: bool = False
    """Shown with its interval; all numbers have one in the JSON result."""


ANSWERS = (
    Column("cover_em", "cover-EM", interval=True),
    Column("em", "EM"),
    Column("f1", "F1"),
    Column("cover_em_any", "any"),
    Column("refused", "refused"),
    Column("recall@1", "R@1"),
    Column("recall@5", "R@5"),
    Column("bm25_recall@5", "BM25"),
    Column("latent_recall@5", "latent"),
    Column("avg_answer_words", "words", percent=False),
)
"""`any` is cover-EM over all aliases; `BM25` and `latent` are those rankers' Recall@5."""

LIKELIHOODS = (
    Column("none", "no document", percent=False),
    Column("text", "text", percent=False),
    Column("right", "right latents", percent=False),
    Column("wrong", "wrong latents", percent=False),
    Column("gap_closed", "gap closed"),
)
PARAPHRASES = (
    Column("restatement_rougeL", "ROUGE-L", interval=True),
    Column("restatement_rouge1", "ROUGE-1"),
    Column("restatement_rouge2", "ROUGE-2"),
    Column("source_rougeL", "source-L"),
    Column("source_rouge1", "source-1"),
    Column("source_numbers_kept", "numbers"),
    Column("source_names_kept", "names"),
    Column("avg_words", "words", percent=False),
)
"""ROUGE against the restatement; ROUGE, numbers and names kept against the passage itself."""

RETRIEVAL = (
    Column("recall@1", "R@1"),
    Column("recall@3", "R@3"),
    Column("recall@5", "R@5", interval=True),
    Column("recall@25", "R@25"),
    Column("recall@37", "R@37"),
    Column("mrr@10", "MRR@10"),
    Column("ndcg@10", "nDCG@10"),
)

KINDS = (ANSWERS, LIKELIHOODS, PARAPHRASES, RETRIEVAL)
"""By its first column a kind of result is known; the first that fits."""

HEADINGS = {column.key: column.heading for kind in KINDS for column in kind}


def table(results: Mapping[str, Results], *, heading: str = "result") -> Table:
    """Sets down, numbers across, in percent; some with an interval, missing ones a dash.

    Args:
        results: of one or more evaluations, each under a label that is shown if there are more.
        heading: what a label is.
    """
    columns = _columns(results)
    shown = Table(box=None, header_style="dim", pad_edge=False, collapse_padding=True)
    if len(results) > 1:
        shown.add_column(heading, overflow="fold")
    shown.add_column("set")
    shown.add_column("n", justify="right")
    for column in columns:
        shown.add_column(column.heading, justify="right", no_wrap=True)
    for name in sets(results):
        for label, found in results.items():
            if name in found:
                cells = [_cell(found[name], column) for column in columns]
                first = [Text(label), Text(name)] if len(results) > 1 else [Text(name)]
                shown.add_row(*first, f"{found[name].get('n', 0):,}", *cells)
    return shown


def plot(results: Mapping[str, Results], path: Path, *, key: str = "cover_em") -> Path:
    """Draw one number as bars with intervals, a group for each set, a colour for each result.

    Args:
        results: of one or more evaluations, each under the label the legend shows.
        path: a picture of a kind the suffix names, such as .png; its folder is made.
        key: the number, a fraction.
    Raises:
        InvalidInput: no result has this number, or the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [
        name for name in sets(results) if any(key in r.get(name, {}) for r in results.values())
    ]
    if not names:
        raise InvalidInput(f"no result has {key}", field="--plot", remedy="Evaluate answers.")
    figure = Figure(figsize=(2 + 1.4 * len(names), 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(results)
    for number, (label, found) in enumerate(results.items()):
        bars = [bar(found.get(name, {}), key) for name in names]
        places = [at + width * (number - (len(results) - 1) / 2) for at in range(len(names))]
        heights, below, above = zip(*bars, strict=True)
        drawn = axes.bar(places, heights, width, yerr=[below, above], capsize=3, label=label)
        axes.bar_label(drawn, fmt="%.0f", padding=2)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel(f"{HEADINGS.get(key, key)}, %")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=min(len(results), 6))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: a kind of picture matplotlib cannot write
        raise _unwritable(path, error, "--plot") from error
    return path


def bar(numbers: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    """Height of one bar and how far its interval reaches below and above, in percent.

    All three are NaN, which is not drawn, where there is no such number.
    """
    value = float(numbers.get(key, math.nan))
    low, high = numbers.get("intervals", {}).get(key, (value, value))
    return 100 * value, 100 * max(value - low, 0.0), 100 * max(high - value, 0.0)


def sets(results: Mapping[str, Results]) -> list[str]:
    """Names of all sets, in the order in which they first occur."""
    return list(dict.fromkeys(name for found in results.values() for name in found))


def write_results(path: Path, results: Results) -> None:
    """Write numbers as JSON, whole or not at all.

    Raises:
        InvalidInput: the file cannot be written.
    """
    write_text(path, json.dumps(results, indent=2, ensure_ascii=False) + "\n", "--json")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all. Raises as `write_results`."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, "".join(lines), "--rows")


def write_text(path: Path, text: str, option: str) -> None:
    """Write a file under another name first. Raises InvalidInput, naming the option."""
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, error, option) from error
    finally:
        part.unlink(missing_ok=True)


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote.

    Raises:
        InvalidInput: no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from error
    except ValueError as error:
        raise _unreadable(path, f"it is not JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(n, dict) for n in found.values()):
        raise _unreadable(path, "it holds no numbers by set")
    return found


def _columns(results: Mapping[str, Results]) -> Sequence[Column]:
    """The kind of numbers at hand, without columns that nobody has."""
    keys = {key for found in results.values() for numbers in found.values() for key in numbers}
    for kind in KINDS:
        if kind[0].key in keys:
            return [column for column in kind if column.key in keys]
    return []


def _cell(numbers: Mapping[str, Any], column: Column) -> str:
    value = numbers.get(column.key)
    if value is None:
        return "-"
    if not column.percent:
        return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
    ends = numbers.get("intervals", {}).get(column.key) if column.interval else None
    spread = f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else ""
    return f"{100 * value:.1f}{spread}"


def _unwritable(path: Path, error: Exception, option: str) -> InvalidInput:
    reason = getattr(error, "strerror", None) or str(error)
    return InvalidInput(
        f"{path} cannot be written: {reason}", field=option, remedy="Name another file."
    )


def _unreadable(path: Path, reason: str) -> InvalidInput:
    return InvalidInput(
        f"{path} is no result of an evaluation: {reason}",
        field=str(path),
        remedy="Give a file that `clara evaluate --json` wrote.",
    )
