"""Files: their text becomes documents; each is read in a process of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Annotated, cast

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Form, Request, UploadFile
from starlette.concurrency import run_in_threadpool

from api import checks, schemas
from api.deps import Config, Db, collection_named
from api.errors import raise_all
from api.ingest import accept
from api.strict_body import StrictRoute
from api.validation import MAX_FAULTS
from clara.errors import BodyTooLarge, ClaraError, InvalidInput
from clara.extraction import extract_isolated
from clara.settings import Settings
from clara.types import SourceDocument

router = APIRouter(prefix="/v1", tags=["documents"], route_class=StrictRoute)

EXTRACT_S = 30.0
EXTRACT_MB = 1024
FILES_AT_ONCE = 2
"""Files read at the same time by one server process."""


@router.post(
    "/collections/{name}/files",
    status_code=202,
    summary="Upload files",
    responses=schemas.problems(400, 404, 413, 415, 422),
)
async def upload(
    request: Request,
    open_db: Db,
    config: Config,
    name: str,
    files: list[UploadFile],
    source_prefix: Annotated[str, Form(max_length=500)] = "",
) -> schemas.Accepted:
    """Store the texts of files as documents, all or none; one run makes them searchable.

    `external_id` and `source` of each are `source_prefix` and the file's name.
    """
    checks.check_count(len(files), "files", config)
    checks.name(source_prefix, "/source_prefix", 500)
    await run_in_threadpool(_check_collection, open_db, name)
    limiter = cast("CapacityLimiter", request.app.state.extraction)
    read = (
        _read(file, f"/files/{index}", config, limiter, source_prefix)
        for index, file in enumerate(files)
    )
    results = await asyncio.gather(*read)
    raise_all([one for one in results if isinstance(one, ClaraError)][:MAX_FAULTS])
    documents = [one for one in results if isinstance(one, SourceDocument)]
    return await run_in_threadpool(accept, open_db, name, documents)


def _check_collection(open_db: Db, name: str) -> None:
    with open_db() as db:
        collection_named(db, name)


async def _read(
    file: UploadFile, field: str, config: Settings, limiter: CapacityLimiter, prefix: str
) -> SourceDocument | ClaraError:
    """The text of one file, or what is wrong with it."""
    try:
        name = _file_name(file, field)
        if (file.size or 0) > config.max_file_bytes:
            raise _too_large(name, file.size or 0, config.max_file_bytes)
        extract = partial(
            extract_isolated,
            name,
            max_chars=config.max_document_chars,
            timeout_s=EXTRACT_S,
            memory_mb=EXTRACT_MB,
        )
        document = await to_thread.run_sync(lambda: extract(file.file.read()), limiter=limiter)
    except InvalidInput as error:
        error.field = field
        return error
    full = prefix + name
    return replace(document, external_id=full, source=full)


def _file_name(file: UploadFile, field: str) -> str:
    """The name as the client gave it; it names a document and never a file of ours."""
    name = file.filename or ""
    checks.name(name, field, schemas.TITLE_CHARS)
    return name


def _too_large(name: str, size: int, limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"{name} has {size:,} bytes; the limit per file is {limit:,}",
        limit=limit,
        remedy="Split it into smaller files.",
    )
