"""Runs migrations on the database of the settings, or on a connection handed in by a test."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from clara.db.base import Base
from clara.db.connect import connect
from clara.db.tables import Collection  # noqa: F401 - fills Base.metadata
from clara.settings import settings


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    with connect(settings().database_url).connect() as connection:
        _migrate(connection)
