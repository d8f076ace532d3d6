"""What a training is asked to do, checked as far as it can be without reading a record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from api.errors import raise_all
from api.routes.training_data import check_name
from api.training_schemas import NewTraining
from clara import registry
from clara.errors import ClaraError, InvalidInput, InvalidTraining, UnknownCheckpoint
from clara.settings import Settings
from clara.texts import check_characters
from clara.training.config import StageConfig, from_dict

HUB_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*(/[\w./-]+)?"
_MESSAGE_CHARS = 500
"""Characters of a message that repeats what the client sent."""


def resolved(db: Session, body: NewTraining, config: Settings) -> dict[str, Any]:
    """The inputs of a train run.

    Raises:
        ClaraError: the configuration, a file or the checkpoint cannot be; several faults as one.
    """
    stage_config = _config(body)
    raise_all([*_missing(body.data, "data", config), *_missing(body.dev, "dev", config)])
    check_characters(body.base, field="/base")
    path, base = _start(db, body)
    return {
        "stage": body.stage,
        "config": stage_config.as_dict(),
        "data": body.data,
        "dev": body.dev,
        "base": body.base or base,
        "checkpoint": path,
        "name": body.name,
    }


def _config(body: NewTraining) -> StageConfig:
    if "stage" in body.config:
        raise InvalidTraining(
            "the stage stands beside the configuration, not in it",
            field="/config/stage",
            remedy="Remove it.",
        )
    try:
        return from_dict({**body.config, "stage": body.stage})
    except InvalidTraining as error:
        where = (error.field or "").replace(".", "/")
        raise InvalidTraining(
            error.message[:_MESSAGE_CHARS], field=f"/config/{where}", remedy=error.remedy
        ) from error


def _missing(names: Sequence[str], what: str, config: Settings) -> list[ClaraError]:
    """A fault for each name that no uploaded file has."""
    faults: list[ClaraError] = []
    for index, name in enumerate(names):
        field = f"/{what}/{index}"
        try:
            check_name(name, field)
            _check_there(config.training_files, name, field)
        except InvalidInput as fault:
            faults.append(fault)
    return faults


def _check_there(folder: Path, name: str, field: str) -> None:
    path = (folder / name).resolve()
    if not (path.is_file() and path.is_relative_to(folder.resolve())):
        raise InvalidTraining(
            f"there is no training file {name!r}",
            field=field,
            remedy=f"Upload it with PUT /v1/trainings/data/{name}.",
        )


def _start(db: Session, body: NewTraining) -> tuple[str, str]:
    """Folder or Hub name of the checkpoint to go on from, and its base where the record knows it.

    Raises:
        InvalidTraining: none is given and the stage needs one, or it has no weights.
        UnknownCheckpoint: it is neither registered, nor a folder, nor a Hub name.
    """
    named, field = body.checkpoint, "/checkpoint"
    if not named:
        if body.stage > 1:
            raise InvalidTraining(
                f"stage {body.stage} goes on from a checkpoint, and none is given",
                field=field,
                remedy=f"Train stage {body.stage - 1} first and give its checkpoint.",
            )
        return "", ""
    check_characters(named, field=field)
    if Path(named).is_absolute():
        return checked_path(named, field), ""
    try:
        row = registry.find(db, named)
    except UnknownCheckpoint as error:
        if re.fullmatch(HUB_NAME, named):
            return named, ""
        error.field = field
        raise
    if row.path is None:
        raise InvalidTraining(f"{row.name} has no weights", field=field, remedy="Take another.")
    return row.path, row.base


def checked_path(named: str, field: str) -> str:
    """A folder that holds a model's files, or a Hub name, which the worker looks up.

    Raises:
        UnknownCheckpoint: neither.
    """
    path = Path(named)
    if path.is_absolute():
        if any((path / mark).is_file() for mark in ("manifest.json", "config.json")):
            return named
    elif re.fullmatch(HUB_NAME, named):
        return named
    raise UnknownCheckpoint(
        f"{named[:200]!r} is neither a checkpoint's folder nor a Hub name",
        field=field,
        remedy="Give the absolute path of a folder with manifest.json or config.json.",
    )
