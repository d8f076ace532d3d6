from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from clara.db.base import Base
from clara.db.connect import OpenDb, connect, open_db
from clara.db.migrate import configuration
from clara.db.tables import RunKind
from tests.conftest import with_database
from tests.factories import make_checkpoint, make_run


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


def test_going_back_takes_runs_along_that_no_older_release_can_read(postgres_url: str) -> None:
    name = f"migrations_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    engine = connect(with_database(postgres_url, name))
    with engine.begin() as connection:
        command.upgrade(configuration(connection), "head")
    with open_db(engine).begin() as db:
        training = make_run(db, RunKind.TRAIN)
        kept = make_run(db, RunKind.PURGE)
        make_checkpoint(db, run_id=training.id, path="/somewhere", active=True)
    with engine.begin() as connection:
        command.downgrade(configuration(connection), "0001")
        assert connection.execute(text("SELECT id FROM run")).scalars().all() == [kept.id]
        assert connection.execute(text("SELECT count(*) FROM checkpoint")).scalar() == 1
        command.upgrade(configuration(connection), "head")
    engine.dispose()


def test_at_most_one_checkpoint_is_active(db: OpenDb) -> None:
    with db.begin() as session:
        make_checkpoint(session, active=True)
        make_checkpoint(session, active=False)
    with pytest.raises(IntegrityError, match="uq_checkpoint_active"), db.begin() as session:
        make_checkpoint(session, active=True)


def test_passages_get_the_words_they_were_made_from_and_lose_those_that_are_gone(
    postgres_url: str,
) -> None:
    name = f"migrations_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    engine = connect(with_database(postgres_url, name))
    collection, kept, rewritten = uuid4(), uuid4(), uuid4()
    with engine.begin() as connection:
        command.upgrade(configuration(connection), "0003")
        connection.execute(
            text("INSERT INTO collection (id, name, description) VALUES (:id, 'c', '')"),
            {"id": collection},
        )
        for document, status in ((kept, "indexed"), (rewritten, "pending")):
            connection.execute(
                text(
                    "INSERT INTO document (id, collection_id, external_id, title, text,"
                    " content_hash, metadata, status) VALUES (:id, :collection, :name, 'Tea',"
                    " 'Ä cup of 🍵 tea.', '', :metadata, :status)"
                ),
                {
                    "id": document,
                    "collection": collection,
                    "name": status,
                    "metadata": '{"year": 1}',
                    "status": status,
                },
            )
            connection.execute(
                text(
                    'INSERT INTO passage (id, collection_id, document_id, start, "end", tokens)'
                    " VALUES (:id, :collection, :document, 2, 10, 1)"
                ),
                {"id": uuid4(), "collection": collection, "document": document},
            )
        command.upgrade(configuration(connection), "head")
        rows = connection.execute(text("SELECT document_id, title, text, metadata FROM passage"))
        assert rows.all() == [(kept, "Tea", "cup of 🍵", {"year": 1})]
    engine.dispose()
