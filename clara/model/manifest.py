"""manifest.json: what a checkpoint in our own form says of itself and of its files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clara.errors import InvalidCheckpoint
from clara.model.files import damaged, read_json, typed
from clara.model.fingerprints import file_hash, fingerprint

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint

NAME = "manifest.json"

FORMAT = 1
"""Version of the folder form; another one where fields or fingerprints change their meaning."""


@dataclass(frozen=True)
class Manifest:
    """The fields of a manifest, each of its own type."""

    name: str
    licence: str
    trained: bool
    base_hash: str | None
    fingerprint: str | None
    """`mark_of` the checkpoint; None where the base's hash was not known."""
    notes: tuple[str, ...]
    config: Mapping[str, Any]
    """Fields of `CheckpointConfig`, still unchecked."""
    files: Mapping[str, Any]
    """Hash by file name."""


def mark_of(checkpoint: Checkpoint) -> str | None:
    """Fingerprint at the noted rate in float32, on the noted base; None where none is noted.

    Latents made in another dtype carry another fingerprint; this one is for comparing checkpoints.
    """
    if checkpoint.base_hash is None:
        return None
    return fingerprint(checkpoint, checkpoint.base_hash, dtype=torch.float32)


def write(checkpoint: Checkpoint, folder: Path, files: Iterable[str]) -> None:
    """Describe a checkpoint whose files are in `folder`."""
    content = {
        "format": FORMAT,
        "name": checkpoint.name,
        "licence": checkpoint.licence,
        "trained": checkpoint.trained,
        "base_hash": checkpoint.base_hash,
        "fingerprint": mark_of(checkpoint),
        "notes": list(checkpoint.notes),
        "config": asdict(checkpoint.config),
        "files": {name: file_hash(folder / name) for name in files},
    }
    (folder / NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        InvalidCheckpoint: it is missing or damaged, of another format, or a field has another type.
    """
    path = folder / NAME
    raw = read_json(path)
    if raw.get("format") != FORMAT:
        raise InvalidCheckpoint(
            f"{folder} has format {raw.get('format')!r}; this release reads {FORMAT}",
            field="format",
            remedy="Use a release that knows this format",
        )
    notes = typed(raw, "notes", list, path, [])
    if not all(isinstance(note, str) for note in notes):
        raise damaged(path, "notes must be a list of texts")
    return Manifest(
        name=typed(raw, "name", str, path),
        licence=typed(raw, "licence", str, path),
        trained=typed(raw, "trained", bool, path),
        base_hash=typed(raw, "base_hash", str, path, "") or None,
        fingerprint=typed(raw, "fingerprint", str, path, "") or None,
        notes=tuple(notes),
        config=typed(raw, "config", dict, path),
        files=typed(raw, "files", dict, path),
    )


def check_mark(checkpoint: Checkpoint, noted: Manifest) -> None:
    """Raises InvalidCheckpoint where a checkpoint is not the one its manifest was written for.

    Hashes of files say nothing of the manifest itself: a rate or a length changed in it would give
    other latents under the old name. A manifest without a fingerprint is not checked.
    """
    if noted.fingerprint is None:
        return
    found = mark_of(checkpoint)
    if found != noted.fingerprint:
        raise InvalidCheckpoint(
            f"{checkpoint.name} has fingerprint {found}; its manifest was written for "
            f"{noted.fingerprint}: a field that decides latents was changed",
            field="fingerprint",
            remedy="Fetch or save the checkpoint again",
        )
