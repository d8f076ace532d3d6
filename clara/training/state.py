"""What a training needs to go on after a kill: what it learned, the optimiser's moments, the step.

No random state is kept: everything drawn is a function of seed and step.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clara.errors import DiskFull, InvalidTraining

_NAME = "state"


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Spent in steps, over all resumptions."""
    tokens: int = 0
    """Token places that went through the model."""
    skipped: int = 0
    """Records that left nothing to learn from."""
    best: float | None = None
    """Best dev score so far; lower is better."""
    best_step: int | None = None
    worse: int = 0
    """Scores since the best one."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """Dev scores by step."""


def write(
    folder: Path,
    learned: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Replace the state in `folder`, whole or not at all. Raises DiskFull."""
    part, final = folder / f".{_NAME}.part", folder / _NAME
    shutil.rmtree(part, ignore_errors=True)
    with explained(folder):
        part.mkdir(parents=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in learned.items()}, part / "learned")
        save_file(_moments(learned, optimiser), part / "moments")
        (part / "progress.json").write_text(json.dumps(asdict(progress)))
        before = folder / f".{_NAME}.before"
        shutil.rmtree(before, ignore_errors=True)
        if final.exists():
            final.rename(before)
        part.rename(final)
        shutil.rmtree(before, ignore_errors=True)


def read(
    folder: Path, learned: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> Progress:
    """Put the kept state in place; the beginning where there is none.

    Raises:
        InvalidTraining: the state is of a training with other parameters.
    """
    before, final = folder / f".{_NAME}.before", folder / _NAME
    if not final.exists() and before.exists():  # killed between the two renames
        before.rename(final)
    if not final.exists():
        return Progress()
    kept = load_file(final / "learned")
    if kept.keys() != learned.keys() or any(kept[k].shape != learned[k].shape for k in kept):
        raise InvalidTraining(
            f"{final} was made by a training of other parameters",
            field="out",
            remedy="Give another folder, or the configuration it was begun with",
        )
    with torch.no_grad():
        for name, tensor in kept.items():
            learned[name].copy_(tensor)
    _put_moments(learned, optimiser, load_file(final / "moments"))
    return Progress(**json.loads((final / "progress.json").read_text()))


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Writing that fails for want of room is DiskFull."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
            free = shutil.disk_usage(_existing(folder)).free
            raise DiskFull(
                f"no room left in {folder} ({free / 1e6:.0f} MB free)",
                field=str(folder),
                remedy="Make room and start again: the training goes on from its last state",
            ) from error
        raise


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _moments(
    learned: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    return {
        f"{name}|{key}": value.detach().cpu().contiguous()
        for name, parameter in learned.items()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def _put_moments(
    learned: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    kept: Mapping[str, Tensor],
) -> None:
    for entry, value in kept.items():
        name, _, key = entry.rpartition("|")
        place = torch.device("cpu") if key == "step" else learned[name].device
        optimiser.state[learned[name]][key] = value.to(place)
