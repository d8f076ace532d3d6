"""Folders of the embedded index: one per generation of a collection, and a file that says which one
is searched.

`<collection>` is the first, `<collection>.2` the second; `<collection>.active` holds the number of
the one that is searched, and is missing as long as that is the first. It is replaced by a rename,
so every reader finds the old number or the new one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import UUID

FIRST = 1
"""Number of the generation that a first write makes."""


@dataclass(frozen=True)
class Folders:
    """Those below one folder; safe to share between threads and between processes."""

    root: Path

    def path(self, collection: UUID, generation: int) -> Path:
        """Of one generation, whether or not it is there."""
        name = collection.hex if generation == FIRST else f"{collection.hex}.{generation}"
        return self.root / name

    def active(self, collection: UUID) -> int:
        """The generation that is searched."""
        try:
            return int(self._pointer(collection).read_text(encoding="ascii"))
        except (FileNotFoundError, NotADirectoryError):
            return FIRST

    def point(self, collection: UUID, generation: int) -> None:
        """Let another generation be searched, in one step that a power cut cannot halve."""
        pointer = self._pointer(collection)
        with NamedTemporaryFile(
            "w", dir=self.root, prefix=f"{pointer.name}.", delete=False, encoding="ascii"
        ) as file:
            file.write(str(generation))
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(pointer)
        _keep_names(self.root)

    def numbers(self, collection: UUID) -> list[int]:
        """Generations that have a folder, smallest first."""
        names = [found.name for found in self.root.glob(f"{collection.hex}.*")]
        ends = [name.removeprefix(f"{collection.hex}.") for name in names]
        numbers = {FIRST, *(int(end) for end in ends if end.isdecimal())}
        return [one for one in sorted(numbers) if self.path(collection, one).is_dir()]

    def forget(self, collection: UUID) -> None:
        """Remove the pointer, and what a switch that was killed left of one."""
        for left in self.root.glob(f"{collection.hex}.active*"):
            left.unlink(missing_ok=True)

    def _pointer(self, collection: UUID) -> Path:
        return self.root / f"{collection.hex}.active"


def _keep_names(folder: Path) -> None:
    """Have the names in a folder written to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
