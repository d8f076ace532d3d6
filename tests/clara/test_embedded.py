from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis

from clara import embedded
from clara.errors import ServerFailed


@pytest.fixture
def home() -> Iterator[Path]:
    """Outside pytest's folders: run as root, Postgres is another user who must be able to enter."""
    folder = Path(tempfile.mkdtemp(prefix="clara-embedded-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_postgres_keeps_its_rows_over_a_restart(home: Path) -> None:
    with embedded.postgres(home) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert not embedded.postgres_runs(home)
    with embedded.postgres(home) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_valkey_keeps_its_messages_over_a_restart_and_never_evicts(home: Path) -> None:
    with embedded.valkey(home) as url, redis.Redis.from_url(embedded.client_url(url)) as client:
        client.rpush("query", "message")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with embedded.valkey(home) as url, redis.Redis.from_url(embedded.client_url(url)) as client:
        assert client.lrange("query", 0, -1) == [b"message"]


def test_a_folder_name_too_long_for_a_socket_is_no_obstacle(home: Path) -> None:
    deep = home / ("x" * 60) / ("y" * 60)
    with embedded.valkey(deep) as url, redis.Redis.from_url(embedded.client_url(url)) as client:
        assert client.ping()


def test_two_valkeys_in_one_folder_are_refused(home: Path) -> None:
    with (
        embedded.valkey(home),
        pytest.raises(ServerFailed, match="Valkey"),
        embedded.valkey(home),
    ):
        pass


def test_servers_left_behind_are_stopped(home: Path) -> None:
    with ExitStack() as crashed:
        crashed.enter_context(embedded.postgres(home))
        crashed.enter_context(embedded.valkey(home))
        assert embedded.stop_postgres(home)
        assert embedded.stop_valkey(home)
        assert not embedded.stop_postgres(home)
        assert not embedded.stop_valkey(home)


def test_a_program_that_used_a_server_ends_quietly(home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from clara import embedded\n"
        "with embedded.postgres(Path(sys.argv[1])), embedded.valkey(Path(sys.argv[1])): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_what_another_user_left_in_the_temporary_folder_is_no_obstacle(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / ".lockfile").mkdir()  # no more to be opened than a file of somebody else
    code = (
        "import sys; from pathlib import Path; from clara import embedded\n"
        "with embedded.postgres(Path(sys.argv[1])): pass"
    )
    settings = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)],
        capture_output=True,
        text=True,
        env=settings | {"TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
