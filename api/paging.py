"""Pages by key: stable while rows come and go, and as fast on the last page as on the first."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, tuple_

from clara.errors import InvalidInput

MAX_LIMIT = 200


class Page(BaseModel):
    """Which part of a list; the base of every list's query."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="Rows per page.")
    after: str | None = Field(default=None, max_length=200, description="`next` of a page.")


PageQuery = Annotated[Page, Query()]


def next_page(rows: list[Any], limit: int) -> str | None:
    """Where to go on after a page read with one row more than its limit; cuts that row off."""
    if len(rows) <= limit:
        return None
    del rows[limit:]
    key = json.dumps([rows[-1].created_at.isoformat(), str(rows[-1].id)])
    return base64.urlsafe_b64encode(key.encode()).decode()


def is_after(cursor: str, table: Any, *, newest_first: bool = False) -> ColumnElement[bool]:
    """Rows of a table that follow a cursor, in the order of `created_at` and `id`.

    Raises:
        InvalidInput: no page ended there.
    """
    try:
        created_at, row_id = json.loads(base64.urlsafe_b64decode(cursor))
        key = (datetime.fromisoformat(created_at), UUID(row_id))
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(
            "`after` is not the end of a page",
            field="after",
            remedy="Give `next` of the page before, or leave it out.",
        ) from error
    columns = tuple_(table.created_at, table.id)
    return columns < key if newest_first else columns > key
