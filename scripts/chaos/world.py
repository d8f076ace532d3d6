"""The whole system on this machine, with every part of it within reach of a kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

import psutil

from clara import embedded
from clara.client import Client
from clara.commands import serve
from clara.commands.supervisor import Process, Running, environment, system
from clara.db.connect import OpenDb, connect, open_db
from clara.settings import Settings

from .proxy import Proxy

START_S = 120.0
DOC_MAX_LENGTH = 64
TEND_S = 0.2


def config_of(home: Path, *, base: Path, encoder: Path, elasticsearch_url: str = "") -> Settings:
    """Short leases, so that recovery is a matter of seconds, and runs that outlive every kill."""
    return Settings(
        home=home,
        database_url="",
        redis_url="",
        elasticsearch_url=elasticsearch_url,
        base_model=str(base),
        sentence_encoder=str(encoder),
        checkpoint="",
        api_port=_free_port(),
        flower_port=_free_port(),
        doc_max_length=DOC_MAX_LENGTH,
        max_answer_tokens=8,
        torch_threads=1,
        run_lease_s=4.0,
        reconcile_s=2.0,
        run_attempts=50,
        nightly="",
    )


@dataclass
class World:
    """Everything that runs."""

    config: Settings
    running: Running
    other: Path
    """A checkpoint that answers now and then."""
    elasticsearch: Proxy | None
    checkpoint: str | None = None
    """Its id, once it is registered."""
    _servers: dict[str, ExitStack] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _over: Event = field(default_factory=Event)

    @property
    def home(self) -> Path:
        """Folder of the servers' data."""
        return self.config.home

    def client(self) -> Client:
        """A client of the API."""
        return Client(self.running.api, timeout_s=10)

    def database(self) -> OpenDb:
        """A connection of the checks' own."""
        return open_db(connect(self.config.database_url))

    def kill(self, name: str) -> None:
        """SIGKILL for a process; it is started again."""
        with self._lock:
            process = self._process(name)
            if not process.ended():
                process.popen.kill()

    def restart_postgres(self) -> None:
        """An immediate shutdown, as a crash: it recovers from its log at the next start."""
        first = (self.home / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0]
        _end(int(first), signal.SIGQUIT)
        self._servers["postgres"].pop_all()
        stack = ExitStack()
        stack.enter_context(embedded.postgres(self.home))
        self._servers["postgres"] = stack

    def restart_valkey(self) -> None:
        """SIGKILL; what was written in the last second is lost."""
        data = str(self.home.resolve() / "valkey")
        for process in psutil.process_iter(["name", "cwd"]):
            if process.info["cwd"] == data and "valkey" in (process.info["name"] or ""):
                _end(process.pid, signal.SIGKILL)
        self._servers["valkey"].pop_all()
        stack = ExitStack()
        stack.enter_context(embedded.valkey(self.home))
        self._servers["valkey"] = stack

    def another_beat(self, seconds: float) -> None:
        """A second beat beside the first, for a while."""
        config = self.config.model_copy(update={"home": self.home / "second"})
        config.home.mkdir(exist_ok=True)
        popen = subprocess.Popen(  # noqa: S603 - our own interpreter and constants
            serve.argv("beat", config),
            env=environment(self.config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        popen.kill()
        popen.wait()

    def tend(self) -> None:
        """Start again whatever ended, until the world is."""
        while not self._over.wait(TEND_S):
            with self._lock:
                for process in self.running.processes:
                    if process.ended() and not self._over.is_set():
                        self.running.restart(process)

    def end(self) -> None:
        """Start nothing again."""
        with self._lock:
            self._over.set()

    def _process(self, name: str) -> Process:
        return next(one for one in self.running.processes if one.name == name)


@contextmanager
def world(config: Settings, other: Path) -> Iterator[World]:
    """Servers and processes up, tended by a thread; all stopped at the end.

    Args:
        config: without addresses of Postgres and Valkey; with one of Elasticsearch, it is reached
            through a proxy that can be cut.
        other: folder of a checkpoint over the same base.
    """
    with ExitStack() as stack:
        servers = {name: ExitStack() for name in ("postgres", "valkey")}
        for server in servers.values():
            stack.callback(server.close)
        found = {
            "database_url": servers["postgres"].enter_context(embedded.postgres(config.home)),
            "redis_url": servers["valkey"].enter_context(embedded.valkey(config.home)),
        }
        proxy = None
        if config.elasticsearch_url:
            proxy = stack.enter_context(Proxy(config.elasticsearch_url).running())
            found["elasticsearch_url"] = proxy.url
        addressed = config.model_copy(update=found)
        running = stack.enter_context(system(addressed))
        made = World(addressed, running, other, proxy, _servers=servers)
        stack.callback(_close_all, made)
        tending = Thread(target=made.tend, name="tend", daemon=True)
        tending.start()
        stack.callback(tending.join)
        stack.callback(made.end)
        _await_ready(made)
        yield made


def _close_all(made: World) -> None:
    """The servers as they are now, not as they were at the start."""
    for stack in made._servers.values():
        with suppress(Exception):
            stack.close()


def _await_ready(made: World) -> None:
    ends = time.monotonic() + START_S
    with made.client() as client:
        while not client.ready():
            if time.monotonic() > ends:
                made.running.check()
                raise TimeoutError(f"the API was not ready within {START_S:.0f} s")
            time.sleep(0.3)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(pid: int, how: signal.Signals) -> None:
    process = psutil.Process(pid)
    os.kill(pid, how)
    with suppress(psutil.NoSuchProcess):
        process.wait(timeout=20)
