from __future__ import annotations

from uuid import uuid4

import psycopg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from clara.db.base import Base
from clara.db.connect import connect
from clara.db.migrate import configuration
from tests.conftest import with_database


def test_the_history_goes_up_and_down_again(postgres_url: str) -> None:
    name = f"migrations_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    engine = connect(with_database(postgres_url, name))
    with engine.begin() as connection:
        command.upgrade(configuration(connection), "head")
        command.downgrade(configuration(connection), "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
        command.upgrade(configuration(connection), "head")
    engine.dispose()


def test_the_migrated_database_is_what_the_tables_say(database_url: str) -> None:
    engine = connect(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_checks_keep_their_conventional_names(database_url: str) -> None:
    engine = connect(database_url)
    with engine.connect() as connection:
        names = {c["name"] for c in inspect(connection).get_check_constraints("document")}
    engine.dispose()
    assert names == {"ck_document_status"}
