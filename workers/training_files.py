"""A training's files: kept as they were when it began, and checked before a model is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clara.errors import Cancelled, FaultyRecords, InvalidTraining
from clara.training.config import StageConfig
from clara.training.data import GENERATION_TOP_K, check
from clara.training.report import Report

FIRST_FAULTS = 20
"""Faults kept with a failed run; `clara data check` lists all of them."""


def keep(names: Sequence[str], source: Path, folder: Path) -> tuple[Path, ...]:
    """The files of a training in a folder of its own, so that it goes on with what it began with.

    A file that is uploaded again becomes another one under the same name; this keeps the first.

    Args:
        names: of files in `source`.
        source: where uploads are.
        folder: the training's own; what is there already stays.
    Raises:
        InvalidTraining: one is gone since the training was asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(_kept(source / name, folder / name) for name in names)


def _kept(source: Path, target: Path) -> Path:
    if target.exists():
        return target
    try:
        os.link(source, target)
    except FileNotFoundError as error:
        raise InvalidTraining(
            f"{source.name} is gone", field="data", remedy="Upload it again, and train anew."
        ) from error
    except OSError:  # another file system
        part = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, part)
        part.replace(target)
    return target


def checked(
    files: Sequence[Path], config: StageConfig, *, stopped: Callable[[], bool]
) -> list[dict[str, Any]]:
    """What the files hold, one entry each: records, and counts that may be a surprise.

    Args:
        files: .jsonl or .jsonl.gz.
        config: of the stage they are for.
        stopped: asked between two files.
    Raises:
        FaultyRecords: with the first FIRST_FAULTS faults of all files.
        Cancelled: `stopped` said so.
    """
    reports = []
    for path in files:
        if stopped():
            raise Cancelled("the training was cancelled while its data were checked")
        reports.append(_look(path, config))
    if not all(report.ok for report in reports):
        raise _refusal(reports)
    return [_told(report) for report in reports]


def _look(path: Path, config: StageConfig) -> Report:
    return check(
        path,
        config.stage,
        doc_max_length=config.latents.doc_max_length,
        generation_top_k=getattr(config, "generation_top_k", GENERATION_TOP_K),
    )


def _told(report: Report) -> dict[str, Any]:
    everything = report.as_dict()
    return {
        "file": report.path.name,
        "records": report.records,
        "notes": everything["notes"],
        "sources": everything["sources"],
    }


def _refusal(reports: Sequence[Report]) -> FaultyRecords:
    total = sum(report.fault_counts.total() for report in reports)
    faults = [
        {"file": report.path.name, **fault.as_dict()}
        for report in reports
        for fault in report.faults[:FIRST_FAULTS]
    ][:FIRST_FAULTS]
    first = faults[0]
    where = f"{first['file']}:{first['line']}" if first["line"] else first["file"]
    stage = reports[0].stage
    return FaultyRecords(
        f"{total:,} {'fault' if total == 1 else 'faults'} in the records of {stage.title}; the "
        f"first at {where}{first['field']}: {first['reason']}",
        faults=faults,
        field=where,
        limit=FIRST_FAULTS,
        remedy=f"`clara data check FILE --stage {stage.value}` lists every fault.",
    )


def forget(folder: Path) -> None:
    """Let go of files kept for a training that will not go on."""
    with suppress(OSError):
        shutil.rmtree(folder)
