"""`clara evaluate`: answer files of questions with a checkpoint, and say how well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import progress as bars
from rich.console import Console

from clara.default_models import BASE, chosen_checkpoint, folder_of, is_there
from clara.errors import InvalidInput
from clara.evaluation import report
from clara.evaluation.datasets import (
    Record,
    Restatement,
    read_records,
    read_restatements,
    stem,
)
from clara.evaluation.options import Options, Reading
from clara.evaluation.progress import Progress
from clara.settings import Settings

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint
    from clara.model.models import Models

Found = tuple[dict[str, Any], list[dict[str, Any]]]
"""Numbers of one file, and its rows."""


class Measure(StrEnum):
    """What is measured."""

    ANSWERS = "answers"
    LIKELIHOOD = "likelihood"
    """Of the gold answers after four prompts; nothing is generated."""
    PARAPHRASE = "paraphrase"
    """What can be said again from one latent."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Which model, as the command line names it."""

    checkpoint: str = ""
    """Empty: that of this installation."""
    base: str = ""
    device: str = ""
    rate: int | None = None


@dataclass(frozen=True)
class Request(Weights):
    """What the command line asks for."""

    files: Sequence[Path]
    measure: Measure
    options: Options
    limit: int | None = None
    """First records of each file."""
    max_new_tokens: int | None = None
    """None: what suits the measure."""
    json: Path | None = None
    rows: Path | None = None
    plot: Path | None = None
    compare: Sequence[Path] = ()
    """Earlier results to stand beside."""


def evaluate(request: Request, config: Settings, console: Console) -> None:
    """Measure every file, show a table, and write what was asked for.

    `json` and `rows` are written after each file, so that an interruption loses one at most.

    Raises:
        InvalidInput: nothing to do, two files of one name, or a file at fault.
        ModelMissing, InvalidCheckpoint, CheckpointMismatch: no model can be made.
    """
    shown: dict[str, report.Results] = {}
    for path in request.compare:
        shown[str(path) if path.stem in shown else path.stem] = report.read_results(path)
    if request.files:
        _check_names(request.files)
        shown[_label(request, shown)] = _measure_all(request, config, console)
    if not shown:
        raise InvalidInput("no file to evaluate", field="FILE", remedy="Give one or more files.")
    console.print(report.table(shown))
    if request.plot:
        report.plot(shown, request.plot)
        console.print(f"plot: {request.plot}", highlight=False)


def measure_of(*, likelihood: bool, paraphrase: bool) -> Measure:
    """What two flags ask for. Raises InvalidInput for both of them."""
    if likelihood and paraphrase:
        raise InvalidInput(
            "--likelihood and --paraphrase exclude each other",
            field="--paraphrase",
            remedy="Measure one after the other.",
        )
    if likelihood:
        return Measure.LIKELIHOOD
    return Measure.PARAPHRASE if paraphrase else Measure.ANSWERS


def _measure_all(request: Request, config: Settings, console: Console) -> dict[str, dict[str, Any]]:
    # before the model, so that a fault in the last file costs no waiting
    read = [(stem(path), _read(path, request)) for path in request.files]
    models = load(request, config)
    if request.options.mode is Reading.LATENT and not models.checkpoint.trained:
        console.print("this checkpoint is untrained: its latents carry no meaning", style="yellow")
    results: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for name, records in read:
        with counting(console, name) as tell:
            numbers, found = _MEASURES[request.measure](records, request, models, tell)
        results[name] = numbers | {"checkpoint": _identity(models)}
        if numbers.get("cut") and request.options.mode is not Reading.NONE:
            limit = models.checkpoint.config.doc_max_length
            say = f"{name}: passages cut at {limit} tokens: {numbers['cut']:,}"
            console.print(say, style="yellow", highlight=False)
        rows += [{"file": name, **row} for row in found]
        if request.json:
            report.write_results(request.json, results)
        if request.rows:
            report.write_rows(request.rows, rows)
    return results


def _read(path: Path, request: Request) -> Sequence[Any]:
    """The records of one file; all of them where a limit still needs the others' words."""
    if request.measure is Measure.PARAPHRASE:
        return read_restatements(path, limit=request.limit)
    return read_records(path, limit=None if request.measure is Measure.ANSWERS else request.limit)


def _answers(records: Sequence[Record], request: Request, models: Models, tell: Progress) -> Found:
    from clara.evaluation.bm25 import Bm25
    from clara.evaluation.evaluate import evaluate as run

    # of all records, so that a limit does not change how one of them is ranked
    statistics = Bm25.of(doc for record in records for doc in record.docs)
    some = records[: request.limit]
    found = run(models, some, request.options, statistics=statistics, progress=tell)
    return found.numbers(), [row.as_dict() for row in found.rows]


def _likelihood(
    records: Sequence[Record], request: Request, models: Models, tell: Progress
) -> Found:
    from clara.evaluation.likelihood import gap_closed, likelihoods

    reader = request.options.reader
    found = likelihoods(models, records, text_reader=reader, progress=tell)
    counted = sum(bool(record.pos_index) for record in records)
    return {"n": counted, **found, "gap_closed": gap_closed(found), "reader": str(reader)}, []


def _paraphrase(
    records: Sequence[Restatement], request: Request, models: Models, tell: Progress
) -> Found:
    from clara.evaluation.paraphrase import paraphrase

    found = paraphrase(models, records, max_new_tokens=request.max_new_tokens, progress=tell)
    return found.numbers(), [row.as_dict() for row in found.rows]


_MEASURES: Mapping[Measure, Callable[[Sequence[Any], Request, Models, Progress], Found]] = {
    Measure.ANSWERS: _answers,
    Measure.LIKELIHOOD: _likelihood,
    Measure.PARAPHRASE: _paraphrase,
}


def load(request: Weights, config: Settings) -> Models:
    """The checkpoint asked for, or that of this installation, over its base."""
    from clara.model.models import load_models

    weights = _weights(request, config)
    return load_models(
        weights,
        base=_base(request, config, noted=weights.config.base),
        device=request.device or config.device,
        cache=config.home / "hashes",
        rate=request.rate,
    )


def _weights(request: Weights, config: Settings) -> Checkpoint:
    from clara.model import checkpoint

    own = config.checkpoint if request.base else chosen_checkpoint(config)
    named = request.checkpoint or own
    if named:
        return checkpoint.load(named, base=request.base or config.base_model or None)
    return checkpoint.untrained(
        _base(request, config, noted=""),
        compr_rate=request.rate or config.compression_rate,
        doc_max_length=config.doc_max_length,
    )


def _base(request: Weights, config: Settings, *, noted: str) -> str | Path:
    """The base named by the caller, by the settings, by the checkpoint, or the default one."""
    named = request.base or config.base_model
    if named:
        return named
    if noted and (Path(noted).is_dir() or not is_there(BASE, config.models)):
        return noted
    return folder_of(BASE, config.models, field="--base")


def _identity(models: Models) -> Mapping[str, str | int | bool]:
    """Which weights gave the numbers."""
    config = models.checkpoint.config
    return {
        "name": models.checkpoint.name,
        "trained": models.checkpoint.trained,
        "stage": config.training_stage,
        "rate": config.compr_rate,
        "doc_max_length": config.doc_max_length,
        "fingerprint": models.fingerprint,
        "weights_hash": models.weights_hash,
        "device": str(models.device),
    }


def _label(request: Request, taken: Mapping[str, object]) -> str:
    """Name of this result beside those it is compared with."""
    name = request.json.stem if request.json else "this"
    return name if name not in taken else f"{name} (new)"


def _check_names(files: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in files:
        other = seen.setdefault(stem(path), path)
        if other is not path:
            raise InvalidInput(
                f"{other} and {path} would both be called {stem(path)!r}",
                field=str(path),
                remedy="Rename one of them.",
            )


@contextmanager
def counting(console: Console, name: str) -> Iterator[Progress]:
    """A bar for everything that is counted while one file is measured."""
    text, left = bars.TextColumn("{task.description:>20}"), bars.TimeRemainingColumn()
    columns = (text, bars.BarColumn(), bars.MofNCompleteColumn(), left)
    with bars.Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(f"{name}: {what}", total=total)
            progress.update(tasks[what], completed=done)

        yield tell
