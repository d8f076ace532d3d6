"""Files of training records: upload and list. A training names them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import anyio
from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from api import schemas
from api import training_schemas as shapes
from api.deps import Config
from api.errors import MalformedBody
from clara.errors import UnsupportedFile
from clara.texts import printable
from clara.training.disk import explained

PATH = "/v1/trainings/data/"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.jsonl(\.gz)?"
"""Names of files: none leads out of its folder, none is hidden."""

router = APIRouter(prefix="/v1/trainings/data", tags=["trainings"])


@router.get("", summary="List training files", responses=schemas.problems())
def list_files(config: Config) -> shapes.TrainingFiles:
    """Every file a training may name."""
    folder = config.training_files
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return shapes.TrainingFiles(
        files=[_shown(path) for path in found if re.fullmatch(NAME, path.name) and path.is_file()]
    )


@router.put(
    "/{name}",
    status_code=201,
    summary="Upload a training file",
    responses=schemas.problems(400, 413, 415, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def upload(request: Request, config: Config, name: str) -> shapes.TrainingFile:
    """Keep the body as a file, whole or not at all; one of that name is replaced.

    Trainings that have begun go on with the file they began with.
    """
    check_name(name, "name")
    target = config.training_files / name
    async with _draft(target) as part:
        async with await anyio.open_file(part, "wb") as file:
            async for chunk in request.stream():
                await file.write(chunk)
        part.replace(target)
    return _shown(target)


def check_name(name: str, field: str) -> None:
    """Raise UnsupportedFile for a name that no training file has."""
    if not re.fullmatch(NAME, name):
        raise UnsupportedFile(
            f"{printable(name)[:100]!r} is no name of a training file",
            field=field,
            limit=NAME,
            remedy="Name it with letters, digits, '.', '_' and '-', ending in .jsonl or .jsonl.gz.",
        )


@asynccontextmanager
async def _draft(target: Path) -> AsyncIterator[Path]:
    """A file beside the target that is gone afterwards, unless it took its place.

    Raises:
        DiskFull: no room.
        MalformedBody: the client went away.
    """
    part = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        with explained(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield part
    except ClientDisconnect as error:
        raise MalformedBody("the body was cut off", field="", remedy="Send it again.") from error
    finally:
        part.unlink(missing_ok=True)


def _shown(path: Path) -> shapes.TrainingFile:
    state = path.stat()
    modified = datetime.fromtimestamp(state.st_mtime, UTC)
    return shapes.TrainingFile(name=path.name, bytes=state.st_size, modified_at=modified)
