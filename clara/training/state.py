"""What a training needs to go on after a kill: what it learned, the optimiser's moments, the step.

No random state is kept: everything drawn is a function of seed and step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clara.errors import InvalidTraining
from clara.training.disk import explained, settle
from clara.training.progress import Progress as Progress

_NAME = "state"


def write(
    folder: Path,
    learned: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Replace the state in `folder`, whole or not at all. Raises DiskFull."""
    part = folder / f".{_NAME}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        with explained(folder):
            part.mkdir(parents=True)
            kept = {k: v.detach().cpu().contiguous() for k, v in learned.items()}
            save_file(kept, part / "learned")
            save_file(_moments(learned, optimiser), part / "moments")
            (part / "progress.json").write_text(json.dumps(asdict(progress)))
            settle(part)
            replace(part, folder / _NAME)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace(part: Path, final: Path) -> None:
    """Put a folder in the place of another; `recover` finishes what a kill leaves half done."""
    before = _before(final)
    if final.exists():
        shutil.rmtree(before, ignore_errors=True)
        final.rename(before)
    part.rename(final)
    shutil.rmtree(before, ignore_errors=True)


def recover(folder: Path, name: str = _NAME) -> None:
    """Put back the older folder where a kill came between the two renames of `replace`."""
    final = folder / name
    if not final.exists() and _before(final).exists():
        _before(final).rename(final)


def read(
    folder: Path, learned: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> Progress:
    """Put the kept state in place; the beginning where there is none.

    Raises:
        InvalidTraining: the state is of a training with other parameters.
    """
    final = folder / _NAME
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


def _before(final: Path) -> Path:
    return final.with_name(f".{final.name}.before")


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
    fused = all(group.get("fused") for group in optimiser.param_groups)
    for entry, value in kept.items():
        name, _, key = entry.rpartition("|")
        # one kernel reads its own device alone; the others count steps on the CPU
        counted = key == "step" and not fused
        place = torch.device("cpu") if counted else learned[name].device
        optimiser.state[learned[name]][key] = value.to(place)
