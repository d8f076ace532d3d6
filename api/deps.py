"""What routes need, out of the app that was assembled."""

from __future__ import annotations

import re
from typing import Annotated, Literal, cast

from fastapi import Depends, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.intake import Intake
from clara.db.connect import OpenDb
from clara.db.tables import Collection
from clara.documents import find_collection
from clara.errors import UnknownCollection
from clara.settings import Settings

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
"""Names of collections."""


# Coroutines, since FastAPI hands every plain function of this kind to a thread and waits for it.


async def _open_db(request: Request) -> OpenDb:
    return cast("OpenDb", request.app.state.open_db)


async def _settings(request: Request) -> Settings:
    return cast("Settings", request.app.state.settings)


async def _intake(request: Request) -> Intake:
    return cast("Intake", request.app.state.intake)


Lock = Literal["keep", "end"]
Db = Annotated[OpenDb, Depends(_open_db)]
Config = Annotated[Settings, Depends(_settings)]
Questions = Annotated[Intake, Depends(_intake)]


def collection_named(db: Session, name: str, *, lock: Lock | None = None) -> Collection:
    """The collection of a name out of a request.

    Args:
        db: a transaction.
        name: as the client gave it: anything.
        lock: `keep` it from being deleted, or `end` it, until the transaction is over.
    Raises:
        UnknownCollection: there is none.
    """
    found = find_collection(db, named(name))
    if lock:
        row = select(Collection.id).where(Collection.id == found.id)
        share = lock == "keep"
        if db.scalar(row.with_for_update(read=share, key_share=share)) is None:
            return find_collection(db, name)  # deleted meanwhile: says so
    return found


def named(name: str) -> str:
    """What may be the name of a collection.

    Raises:
        UnknownCollection: none can have it.
    """
    if not re.fullmatch(NAME, name):
        raise UnknownCollection(
            f"no collection is named {name[:100]!r}",
            field="collection",
            limit=NAME,
            remedy="Look at GET /v1/collections.",
        )
    return name
