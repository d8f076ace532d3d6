"""A checkpoint by name, as people name them, over its base."""

from __future__ import annotations

from pathlib import Path

import torch

from clara.errors import InvalidInput, ModelMissing
from clara.model import checkpoint
from clara.model.checkpoint import Checkpoint
from clara.model.hub import local_folder
from clara.model.models import Models, load_models

BY_RATE = "compression-{rate}"
"""Sub-folder of a checkpoint, where one name stands for several rates."""

_SIGNS = ("manifest.json", "adapters.pth")
"""A folder with one of these files is a checkpoint."""


def open_models(
    name: str | Path,
    *,
    subfolder: str | None = None,
    device: str = "auto",
    dtype: torch.dtype | str | None = None,
    base: str | Path | None = None,
    rate: int | None = None,
    revision: str | None = None,
    cache: Path | None = None,
) -> Models:
    """Load a checkpoint; arguments and errors are those of `CLaRa.from_pretrained`."""
    found = checkpoint.load(_place(name, subfolder, rate, revision), base=base, revision=revision)
    return load_models(
        found,
        base=base or _noted_base(found),
        device=device,
        dtype=dtype_of(dtype),
        rate=rate,
        cache=cache,
    )


def dtype_of(name: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype of that name; None where the device decides.

    Raises:
        InvalidInput: no dtype these models compute in.
    """
    if name is None or name == "auto" or isinstance(name, torch.dtype):
        return None if isinstance(name, str) else name
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = known.get(str(name).removeprefix("torch."))
    if found is None:
        raise InvalidInput(f"dtype is {name!r}; known are auto, {', '.join(known)}", field="dtype")
    return found


def _place(
    name: str | Path, subfolder: str | None, rate: int | None, revision: str | None
) -> str | Path:
    """Folder, or Hub name with sub-folder, of the checkpoint itself."""
    by_rate = None if rate is None else BY_RATE.format(rate=rate)
    if not Path(name).is_dir():
        return _on_hub(str(name), subfolder, by_rate, revision)
    folder = Path(name)
    if subfolder is not None:
        return _existing(folder, subfolder)
    if by_rate and not is_checkpoint(folder) and is_checkpoint(folder / by_rate):
        return folder / by_rate
    return folder


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint, in our own form or the published one."""
    return any((folder / sign).exists() for sign in _SIGNS)


def _on_hub(name: str, subfolder: str | None, by_rate: str | None, revision: str | None) -> str:
    if subfolder is not None:
        return f"{name}/{subfolder}"
    if by_rate is None or name.count("/") != 1:
        return name
    try:
        local_folder(f"{name}/{by_rate}", revision=revision)
    except ModelMissing:  # it may be a checkpoint of one rate; if not, that error is told
        return name
    return f"{name}/{by_rate}"


def _existing(folder: Path, subfolder: str) -> Path:
    if (folder / subfolder).is_dir():
        return folder / subfolder
    inside = sorted(path.name for path in folder.iterdir() if is_checkpoint(path))
    raise ModelMissing(
        f"{folder} has no sub-folder {subfolder!r}; checkpoints in it: "
        + (", ".join(inside) or "none"),
        field="subfolder",
        remedy=f"Choose one of them: subfolder={inside[0]!r}" if inside else None,
    )


def _noted_base(found: Checkpoint) -> Path:
    """The base a checkpoint names itself.

    Raises:
        ModelMissing: it is not to be found; published checkpoints name folders of other machines.
    """
    try:
        return local_folder(found.config.base)
    except ModelMissing as error:
        raise ModelMissing(
            f"the base that {found.name} was trained on is not to be found: {error.message}",
            field="base",
            remedy="Say where it is: base=<folder or Hub name>",
        ) from error
