"""Real servers as fixtures: one Postgres and one Valkey per test run, one database per test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from clara import embedded
from clara.db.connect import OpenDb, connect, open_db
from clara.db.migrate import configuration

# one computing thread per process: several test processes share the cores, and their children too
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "200"  # tables and paths are not broken where the folder has a longer name

# how fast a machine is says nothing about a law; benchmarks judge speed
settings.register_profile("clara", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("clara")


@pytest.fixture(scope="session")
def servers_home() -> Iterator[Path]:
    """Outside pytest's own folders: Postgres must be able to enter it as another user."""
    home = Path(tempfile.mkdtemp(prefix="clara-test-"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(servers_home: Path) -> Iterator[str]:
    """A server's address with the right to create databases."""
    given = os.environ.get("CLARA_TEST_DATABASE_URL")
    if given:
        yield given
        return
    with embedded.postgres(servers_home) as url:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET fsync = off")  # a test's data may be lost
            admin.execute("SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def broker_url(servers_home: Path) -> Iterator[str]:
    """Address of a Valkey in the form Celery reads."""
    given = os.environ.get("CLARA_TEST_REDIS_URL")
    if given:
        yield given
        return
    with embedded.valkey(servers_home) as url:
        yield url


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """Name of a migrated database that tests copy."""
    name = f"template_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    engine = connect(with_database(postgres_url, name))
    with engine.begin() as connection:
        command.upgrade(configuration(connection), "head")
    engine.dispose()
    yield name
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated database of this test's own, which other processes can reach too."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"')
    yield with_database(postgres_url, name)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def db(engine: Engine) -> OpenDb:
    """Opens transactions on this test's database."""
    return open_db(engine)


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)
