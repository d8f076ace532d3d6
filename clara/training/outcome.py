"""How a training's process ended, told to the one that started it: `error.json`, exit statuses."""

from __future__ import annotations

import json
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from clara import errors
from clara.errors import Cancelled, ClaraError, TrainingFailed

ERROR = "error.json"
OUTPUT = "train.log"
"""What the processes of a training say, in its folder."""

DONE, FAILED, CANCELLED = 0, 1, 3
"""Exit statuses of `clara.training.main`."""


def status_of(error: BaseException) -> int:
    """Exit status for an error."""
    return CANCELLED if isinstance(error, Cancelled) else FAILED


def write_error(folder: Path, error: BaseException) -> None:
    """Keep an error with its traceback, unless another process of the training was faster.

    The first error is the cause; what others meet afterwards are its consequences. Where there is
    no room for it, the process's output has it alone.
    """
    told = error.as_dict() if isinstance(error, ClaraError) else _unexpected(error)
    lines = "".join(traceback.format_exception(error))
    text = json.dumps({**told, "traceback": lines}, indent=2) + "\n"
    with suppress(OSError):  # a file that exists is an OSError too
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ERROR).open("x", encoding="utf-8") as file:
            file.write(text)


def read_error(folder: Path) -> ClaraError | None:
    """The error kept in a folder, of the class it had; None where there is none.

    A file that cannot be read is a TrainingFailed too.
    """
    path = folder / ERROR
    if not path.exists():
        return None
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = _kinds().get(raw["code"], TrainingFailed)
        parts = {name: raw.get(name) for name in ("field", "limit", "remedy")}
        return kind(raw["message"], **parts)
    except (ValueError, KeyError, TypeError, OSError) as error:
        return TrainingFailed(f"{path} cannot be read: {error}", field=str(path))


def _unexpected(error: BaseException) -> dict[str, Any]:
    found = TrainingFailed(
        f"{type(error).__name__}: {error}", remedy=f"{OUTPUT} beside {ERROR} says more"
    )
    return found.as_dict()


def _kinds() -> dict[str, type[ClaraError]]:
    """Every class of error by its code."""
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return {kind("").code: kind for kind in found if issubclass(kind, ClaraError)}
