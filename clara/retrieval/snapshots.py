"""Dense indexes as they were at a watermark, in files: a faster start, and nothing else.

A file's name ends in the SHA-256 of its bytes, and a file gets its name only when it is complete on
the disk. So what was cut off, damaged or copied from elsewhere is never taken for a snapshot.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clara.errors import SnapshotUnfit
from clara.retrieval.faiss_copy import State
from clara.retrieval.faiss_kinds import Kind, library

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

FORMAT = "1"
SUFFIX = ".snapshot"
_TEMPORARY = ".tmp"
_CHECKED = 32
"""Digits of the checksum in a file's name."""


class Snapshots:
    """The snapshots of one collection and encoder. One is kept; any process may write it.

    Args:
        folder: of all snapshots; made when first written to.
        encoder: name of what made the vectors.
        dimension: numbers per vector.
    """

    def __init__(self, folder: Path, collection: UUID, *, encoder: str, dimension: int) -> None:
        key = hashlib.sha256(encoder.encode()).hexdigest()[:12]
        self._folder = folder / collection.hex / key
        self._facts = {
            "format": FORMAT,
            "collection": str(collection),
            "encoder": encoder,
            "dimension": str(dimension),
        }
        self._dimension = dimension

    def save(self, state: State) -> Path | None:
        """Write one and remove those before it; None where another process is ahead or writing.

        Raises:
            OSError: no room, or no right to write.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._alone() as alone:
            if not alone or any(_watermark(path) >= state.watermark for path in self._found()):
                return None
            for left_over in self._folder.glob(f"*{_TEMPORARY}"):  # of a process that was killed
                left_over.unlink(missing_ok=True)
            path = self._write(state)
            for before in self._found():
                if before != path:
                    before.unlink(missing_ok=True)
            return path

    def read(self) -> Iterator[tuple[Path, State]]:
        """The sound ones of this collection, newest first; others are told of and removed."""
        for path in self._found():
            try:
                yield path, self._read(path)
            except FileNotFoundError:  # a newer one has just taken its place
                continue
            except (SnapshotUnfit, OSError) as error:
                log.warning("the snapshot %s is not used: %s", path, error)
                path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove them all."""
        for path in self._found():
            path.unlink(missing_ok=True)

    def _found(self) -> list[Path]:
        return sorted(self._folder.glob(f"*-*{SUFFIX}"), reverse=True)

    def _write(self, state: State) -> Path:
        temporary = self._folder / f"{os.getpid()}{_TEMPORARY}"
        try:
            facts = self._facts | {"kind": state.kind.value, "watermark": str(state.watermark)}
            save_file(_arrays(state), temporary, metadata=facts)
            checksum = _checksum(temporary)
            _flush(temporary)
            path = self._folder / f"{state.watermark:020d}-{checksum}{SUFFIX}"
            temporary.replace(path)
            _flush(self._folder)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _read(self, path: Path) -> State:
        checksum = _checksum(path)
        if checksum != path.name.removesuffix(SUFFIX).partition("-")[2]:
            raise SnapshotUnfit(f"its bytes have the checksum {checksum}")
        try:
            with safe_open(path, framework="np") as file:
                facts = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise SnapshotUnfit(str(error)) from error
        for name, wanted in self._facts.items():
            if facts.get(name) != wanted:
                raise SnapshotUnfit(f"its {name} is {facts.get(name)!r}, not {wanted!r}")
        return _state(facts, arrays, self._dimension)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process writes here; the system forgets the lock with its holder."""
        with (self._folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def _arrays(state: State) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "ids": state.ids,
        "seqs": state.seqs,
        "alive": state.alive.astype(np.uint8),
        "tail": state.tail,
    }
    if state.built is not None:
        arrays["built"] = library().serialize_index(state.built)
    return arrays


def _state(facts: Mapping[str, str], arrays: Mapping[str, NDArray[Any]], dimension: int) -> State:
    """Raises SnapshotUnfit where the parts do not belong together."""
    try:
        built = library().deserialize_index(arrays["built"]) if "built" in arrays else None
        state = State(
            watermark=int(facts["watermark"]),
            kind=Kind(facts["kind"]),
            ids=arrays["ids"],
            seqs=arrays["seqs"],
            alive=arrays["alive"].astype(np.bool_),
            built=built,
            tail=arrays["tail"],
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise SnapshotUnfit(f"it cannot be read: {error}") from error
    covered = 0 if built is None else int(built.ntotal)
    if built is not None and built.d != dimension:
        raise SnapshotUnfit(f"its index has dimension {built.d}, not {dimension}")
    if len(state.ids) != covered + len(state.tail):
        raise SnapshotUnfit(
            f"it names {len(state.ids)} passages and holds {covered + len(state.tail)} vectors"
        )
    return state


def _watermark(path: Path) -> int:
    number = path.name.partition("-")[0]
    return int(number) if number.isdecimal() else -1


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_CHECKED]


def _flush(path: Path) -> None:
    """Onto the disk, so that neither the name nor the bytes can be there alone after a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
