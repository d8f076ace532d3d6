"""Between a checkpoint's row and its weights: what a row says of them, and the models it names.

Everything here computes with torch: call it where that is meant to happen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clara.db.tables import Checkpoint as Row
from clara.default_models import BASE, is_there
from clara.errors import CheckpointMismatch, ClaraError, InvalidCheckpoint, ModelMissing
from clara.registry import Inspected
from clara.settings import Settings

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint
    from clara.model.models import Models


class _Base(NamedTuple):
    named: str
    """Folder or Hub name."""
    folder: Path
    hashed: str


def inspect(path: str, bases: Sequence[str], config: Settings) -> Inspected:
    """Everything a row says of a checkpoint; computes hashes, and nothing a model would.

    Args:
        path: folder or Hub name; a Hub name stands for the folder it was fetched to.
        bases: folders or Hub names to try, in this order; an empty one is what the checkpoint
            notes.
        config: of this installation.
    Raises:
        ClaraError: the checkpoint is damaged, or fits none of the bases.
    """
    from clara.model import checkpoint as checkpoints
    from clara.model.fit import check_fits
    from clara.model.hub import local_folder

    folder = local_folder(path).resolve()
    found = checkpoints.load(folder)
    base = _base(found, bases, config)
    check_fits(found, base.folder)
    return _inspected(found, base, config, path=str(folder))


def inspect_untrained(base: Path | str, config: Settings) -> Inspected:
    """The same of a checkpoint that is made of its base alone, by the settings' rate and length."""
    from clara.model import checkpoint as checkpoints

    found = checkpoints.untrained(
        base, compr_rate=config.compression_rate, doc_max_length=config.doc_max_length
    )
    return _inspected(found, _base(found, [str(base)], config), config, path=None)


def load(row: Row, config: Settings) -> Models:
    """The models a row names. Raises what `find` and `load_models` raise."""
    return find(row, config)()


def find(row: Row, config: Settings) -> Callable[[], Models]:
    """What loads the models a row names, from its folder or out of its base alone.

    Finding costs little memory, and tells of nearly all that can be wrong.

    Raises:
        CheckpointMismatch: the folder holds other weights by now, or the base is another one.
        InvalidCheckpoint: the folder or the base is damaged.
        ModelMissing: one of them is gone.
    """
    from clara.model.models import load_models

    found, base = _named(row, config)
    cache = config.home / "hashes"
    return lambda: load_models(found, base=base, device=config.device, cache=cache)


def bases(row: Row, config: Settings) -> list[str]:
    """Where a row's base may be, the likeliest first: as noted, or as this installation has it."""
    own = config.base_model
    if not own and is_there(BASE, config.models):
        own = str(config.models / BASE.folder)
    named = [row.base, own] if Path(row.base).is_dir() else [own, row.base]
    return list(dict.fromkeys(base for base in named if base))


def _named(row: Row, config: Settings) -> tuple[Checkpoint, Path]:
    """The weights of a row and the folder of their base; the first base that makes them those."""
    refused: ClaraError | None = None
    for base in bases(row, config):
        try:
            found = _weights(row, base)
            folder = _base(found, [base], config).folder
            _check(row, found, folder, config)
        except (ModelMissing, CheckpointMismatch) as error:
            refused = refused or error
        else:
            return found, folder
    assert refused is not None  # noqa: S101 - a row names a base
    raise refused


def _weights(row: Row, base: str) -> Checkpoint:
    from clara.model import checkpoint as checkpoints

    if row.path is not None:
        return checkpoints.load(row.path, base=base)
    if row.trained:
        raise InvalidCheckpoint(
            f"{row.name} was trained, but no folder of its weights is known",
            field="path",
            remedy="Register the folder it is in with POST /v1/checkpoints.",
        )
    known = {entry.name for entry in fields(checkpoints.CheckpointConfig)} - {"base"}
    numbers = {name: value for name, value in row.config.items() if name in known}
    return checkpoints.Checkpoint(checkpoints.CheckpointConfig(base, **numbers), name=row.name)


def _check(row: Row, found: Checkpoint, folder: Path, config: Settings) -> None:
    """Raises CheckpointMismatch where these are not the weights that were registered."""
    from clara.model.fingerprints import weights_hash
    from clara.model.fit import hash_of_base

    held = weights_hash(found, hash_of_base(found, folder, cache=config.home / "hashes"))
    if held != row.weights_hash:
        raise CheckpointMismatch(
            f"{row.path or f'{row.name} over {folder}'} holds weights {held}; registered were "
            f"{row.weights_hash}",
            field="path",
            remedy="Put back what was registered, or register what is there and promote that.",
        )


def _inspected(found: Checkpoint, base: _Base, config: Settings, *, path: str | None) -> Inspected:
    from clara.model.backbone import pick_device, pick_dtype
    from clara.model.fingerprints import fingerprint, weights_hash

    dtype = pick_dtype(pick_device(config.device))
    return Inspected(
        name=found.name,
        fingerprint=fingerprint(found, base.hashed, dtype=dtype),
        weights_hash=weights_hash(found, base.hashed),
        base=base.named,
        trained=found.trained,
        config=found.config.numbers(),
        path=path,
    )


def _base(found: Checkpoint, named: Sequence[str], config: Settings) -> _Base:
    """The first base that is at hand and the one trained on."""
    from clara.model.fit import hash_of_base
    from clara.model.hub import local_folder

    refused: ClaraError | None = None
    for name in named:
        base = name or found.config.base
        try:
            folder = local_folder(base)
            hashed = hash_of_base(found, folder, cache=config.home / "hashes")
        except (ModelMissing, CheckpointMismatch) as error:
            refused = refused or error
        else:
            return _Base(base, folder, hashed)
    assert refused is not None  # noqa: S101 - there is always one to try
    raise refused
