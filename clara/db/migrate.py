"""Brings the tables up to date from inside a program; `alembic upgrade head` does the same."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from clara.db.connect import connect
from clara.errors import ServerFailed

MIGRATION_LOCK = 0x636C617261
"""Advisory lock, so that two programs started at once do not migrate at once."""


def migrate(url: str) -> None:
    """Apply every migration the database lacks.

    Raises:
        ServerFailed: the migrations folder is not installed.
    """
    engine = connect(url, pool_size=1)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            command.upgrade(configuration(connection), "head")
    finally:
        engine.dispose()


def configuration(connection: Connection) -> Config:
    """Alembic on a given connection and the installed migrations."""
    spec = find_spec("migrations")
    if spec is None or not spec.origin:
        raise ServerFailed("the migrations are not installed", remedy="Install the whole package.")
    config = Config()
    config.set_main_option("script_location", str(Path(spec.origin).parent))
    config.attributes["connection"] = connection
    return config
