"""The folder of one training: whose it is, who works in it, and the checkpoints it keeps."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clara.errors import InvalidTraining
from clara.model import checkpoint as checkpoints
from clara.model.checkpoint import Checkpoint
from clara.training import state
from clara.training.disk import explained, write_whole
from clara.training.plan import Plan
from clara.training.progress import checkpoints_in

CONFIG = "config.json"


@contextmanager
def claimed(plan: Plan, *, main: bool) -> Iterator[None]:
    """Work in a plan's folder: its own, and nobody else's as long as the block runs.

    Args:
        plan: noted in the folder where it is new.
        main: whether this process is the one that writes.
    Raises:
        InvalidTraining: the folder is of another training, or another process trains in it.
        DiskFull: no room for the note.
    """
    _check(plan)
    if not main:
        yield
        return
    with explained(plan.out):
        plan.out.mkdir(parents=True, exist_ok=True)
    with (plan.out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go when we die
        except BlockingIOError as error:
            raise InvalidTraining(
                f"another process trains in {plan.out}",
                field="out",
                remedy="Wait for it, stop it, or give another folder",
            ) from error
        if not (plan.out / CONFIG).exists():
            write_whole(plan.out / CONFIG, json.dumps(_noted(plan), indent=2) + "\n")
        _tidy(checkpoints_in(plan.out))
        yield


def put(made: Checkpoint, path: Path) -> Path:
    """Save a checkpoint where an older one of the same training may be. Raises DiskFull."""
    fresh = path.with_name(f".{path.name}.new")
    with explained(path.parent):
        shutil.rmtree(fresh, ignore_errors=True)
        checkpoints.save(made, fresh)
        state.replace(fresh, path)
    return path


def _tidy(kept: Path) -> None:
    """Undo what a kill left half done."""
    for name in ("best", "last"):
        state.recover(kept, name)
    for part in kept.glob(".*.part"):
        shutil.rmtree(part, ignore_errors=True)


def _check(plan: Plan) -> None:
    path, wanted = plan.out / CONFIG, _noted(plan)
    if not path.exists():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    changed = _differences(found, wanted)
    if changed:
        raise InvalidTraining(
            f"{plan.out} holds a training with other {', '.join(changed)}",
            field="out",
            remedy="Give another folder, or go on with the same configuration",
        )


def _noted(plan: Plan) -> dict[str, Any]:
    """What must be the same when a training goes on; its length may change."""
    config = json.loads(json.dumps(plan.config.as_dict()))
    del config["length"]
    return {
        "config": config,
        "data": [path.name for path in plan.data],
        "checkpoint": plan.checkpoint,
        "exclude_sources": list(plan.exclude_sources),
        "limit": plan.limit,
    }


def _differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    """Paths of the fields that differ, with both values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted({*found, *wanted})
        below = ((f"{path}.{key}" if path else key, key) for key in keys)
        return [
            told
            for where, key in below
            for told in _differences(found.get(key), wanted.get(key), where)
        ]
    return [] if found == wanted else [f"{path} ({found!r}, not {wanted!r})"]
