"""What routes need, out of the app that was assembled."""

from __future__ import annotations

import re
from typing import Annotated, Literal, cast

from fastapi import Depends, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Collection
from clara.documents import find_collection
from clara.errors import UnknownCollection
from clara.settings import Settings

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
"""Names of collections."""


def _open_db(request: Request) -> OpenDb:
    return cast("OpenDb", request.app.state.open_db)


def _settings(request: Request) -> Settings:
    return cast("Settings", request.app.state.settings)


Lock = Literal["keep", "end"]
Db = Annotated[OpenDb, Depends(_open_db)]
Config = Annotated[Settings, Depends(_settings)]


def collection_named(db: Session, name: str, *, lock: Lock | None = None) -> Collection:
    """The collection of a name out of a request.

    Args:
        db: a transaction.
        name: as the client gave it: anything.
        lock: `keep` it from being deleted, or `end` it, until the transaction is over.
    Raises:
        UnknownCollection: there is none.
    """
    if not re.fullmatch(NAME, name):
        raise UnknownCollection(
            f"no collection is named {name[:100]!r}",
            field="collection",
            limit=NAME,
            remedy="Look at GET /v1/collections.",
        )
    found = find_collection(db, name)
    if lock:
        row = select(Collection.id).where(Collection.id == found.id)
        share = lock == "keep"
        if db.scalar(row.with_for_update(read=share, key_share=share)) is None:
            return find_collection(db, name)  # deleted meanwhile: says so
    return found
