"""Files of a training: written whole or not at all, and a full disk told by name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clara.errors import DiskFull

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, a quota is used up, or a file may not grow further."""


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Writing that fails for want of room is DiskFull."""
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        free = shutil.disk_usage(_existing(folder)).free
        raise DiskFull(
            f"no room left in {folder}: {reason} ({free / 1e6:.0f} MB free)",
            field=str(folder),
            remedy="Make room and start again: the training goes on from its last state",
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Put a text where an older one may be; a reader sees one of the two. Raises DiskFull."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """See that a folder's files are on the disk and not only on their way, before it is renamed."""
    for path in (*folder.iterdir(), folder):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _reason(error: Exception) -> str | None:
    """What the system said, where it is about room; safetensors only quotes it."""
    for number in NO_ROOM:
        told = os.strerror(number)
        if getattr(error, "errno", None) == number or told in str(error):
            return told
    return None


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
