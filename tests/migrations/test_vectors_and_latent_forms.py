from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command
from sqlalchemy import Connection, text

from clara.db.connect import connect
from clara.db.migrate import configuration
from tests.conftest import with_database

PASSAGES = [UUID(int=1), UUID(int=2)]


@pytest.fixture
def before(postgres_url: str) -> Iterator[Connection]:
    """A database of the release before, with a vector, a removal and a document's latents."""
    name = f"migrations_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    engine = connect(with_database(postgres_url, name))
    with engine.connect() as connection:
        command.upgrade(configuration(connection), "0002")
        connection.execute(
            text("INSERT INTO collection (id, name, description) VALUES (:id, 'c', '')"), ids(9)
        )
        connection.execute(
            text(
                "INSERT INTO document "
                "(id, collection_id, external_id, title, text, content_hash, metadata, status) "
                "VALUES (:id, :id, 'd', '', 'words', '', '{}', 'indexed')"
            ),
            ids(9),
        )
        for number in (1, 2):
            connection.execute(
                text(
                    "INSERT INTO passage "
                    '(id, collection_id, document_id, start, "end", tokens) '
                    "VALUES (:id, :of, :of, :start, :start + 1, 1)"
                ),
                ids(number) | {"of": UUID(int=9), "start": number},
            )
            connection.execute(
                text(
                    "INSERT INTO latent (passage_id, fingerprint, block, rows, width, checksum) "
                    "VALUES (:id, 'f', '', 1, 0, 0)"
                ),
                ids(number),
            )
        connection.execute(
            text(
                "INSERT INTO dense_entry (collection_id, passage_id, encoder, vector) "
                "VALUES (:of, :one, 'e', '\\x00'), (:of, :two, 'e', NULL)"
            ),
            {"of": UUID(int=9), "one": PASSAGES[0], "two": PASSAGES[1]},
        )
        yield connection
        connection.rollback()
    engine.dispose()


def ids(number: int) -> dict[str, object]:
    return {"id": UUID(int=number)}


def passages_of(connection: Connection, table: str) -> list[UUID]:
    query = f"SELECT passage_id FROM {table} ORDER BY passage_id"  # noqa: S608 - a name above
    return list(connection.execute(text(query)).scalars())


def test_what_is_there_stays_and_can_be_written_again(before: Connection) -> None:
    command.upgrade(configuration(before), "0003")
    assert passages_of(before, "dense_entry") == PASSAGES
    forms = before.execute(text("SELECT form FROM latent")).scalars().all()
    assert forms == ["bf16", "bf16"]
    before.execute(
        text(
            "INSERT INTO dense_entry (collection_id, passage_id, encoder) VALUES (:of, :one, 'e') "
            "ON CONFLICT (collection_id, passage_id, encoder) DO UPDATE SET seq = DEFAULT"
        ),
        {"of": UUID(int=9), "one": PASSAGES[0]},
    )
    assert passages_of(before, "dense_entry") == PASSAGES


def test_going_back_takes_latents_along_that_no_older_release_can_read(before: Connection) -> None:
    command.upgrade(configuration(before), "0003")
    before.execute(
        text("UPDATE latent SET form = 'int8' WHERE passage_id = :id"), {"id": PASSAGES[0]}
    )
    command.downgrade(configuration(before), "0002")
    assert passages_of(before, "latent") == PASSAGES[1:]
    assert passages_of(before, "dense_entry") == PASSAGES
