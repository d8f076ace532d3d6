"""Starts everything on one machine, watches it, and stops it again in the right order."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from clara import embedded
from clara.commands import serve
from clara.db.migrate import migrate
from clara.errors import PortBusy, ServerFailed
from clara.settings import Settings

log = logging.getLogger(__name__)

STOP_S = 20.0
"""Seconds a process has to finish what it does before it is killed; its run is then taken back."""

RESTARTS = 3
"""Times in a row a process is started again before the whole is given up."""

STABLE_S = 60.0
"""Seconds after which a process counts as well again."""


@dataclass
class Process:
    """One process of ours and its log."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    since: float = field(default_factory=time.monotonic)
    restarts: int = 0
    """In a row, each after less than STABLE_S; those that ended well do not count."""

    def ended(self) -> bool:
        """Whether it is gone."""
        return self.popen.poll() is not None

    def fails(self) -> bool:
        """Whether it ends by a fault again and again.

        A worker that ends well was told to by somebody else.
        """
        young = time.monotonic() - self.since < STABLE_S
        return self.restarts >= RESTARTS and young and self.popen.returncode != 0

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass
class Running:
    """The whole system, up."""

    config: Settings
    processes: list[Process]

    @property
    def api(self) -> str:
        """Address of the API."""
        return f"http://{self.config.api_host}:{self.config.api_port}"

    @property
    def flower(self) -> str:
        """Address of Flower."""
        return f"http://{self.config.flower_host}:{self.config.flower_port}"

    def restart(self, process: Process) -> None:
        """Put a fresh process in the place of one that ended; its log goes on."""
        process.popen.wait()
        lived = time.monotonic() - process.since
        failed = process.popen.returncode != 0
        process.restarts = process.restarts * (lived < STABLE_S) + failed
        fresh = _start(process.name, self.config)
        process.popen, process.since = fresh.popen, fresh.since
        _remember(_state(self.config), self)

    def tend(self) -> list[str]:
        """Restart what has ended. Returns the names.

        Raises:
            ServerFailed: a process ends again and again.
        """
        ended = [process for process in self.processes if process.ended()]
        for process in ended:
            if process.fails():
                self.check()
            self.restart(process)
        return [process.name for process in ended]

    def check(self) -> None:
        """See that every process lives.

        Raises:
            ServerFailed: one has ended; the message holds the end of its log.
        """
        for process in self.processes:
            if process.ended():
                raise ServerFailed(
                    f"{process.name} ended with status {process.popen.returncode}:\n"
                    f"{process.last_words()}",
                    remedy=f"The whole log is {process.log}.",
                )


@contextmanager
def system(config: Settings) -> Iterator[Running]:
    """Servers, migrations and processes up; all of them stopped at the end, whatever happens.

    Raises:
        PortBusy: a port is taken.
        ServerFailed: something did not start, or runs on this folder already.
    """
    state = _state(config)
    _refuse_second(state)
    _refuse_busy_ports(config)
    with ExitStack() as stack:
        addressed = _servers(config, stack)
        migrate(addressed.database_url)
        running = Running(addressed, [])
        stack.callback(state.unlink, missing_ok=True)
        stack.callback(_stop, running.processes)
        _remember(state, running)
        _set_logs_aside(config)
        for name in serve.PROCESSES:
            running.processes.append(_start(name, addressed))
            _remember(state, running)
        yield running


def environment(config: Settings) -> dict[str, str]:
    """Variables of a child process: every setting as it is here, embedded addresses included."""
    ours = config.model_copy(update={"home": config.home.resolve()}).variables()
    return os.environ | ours | {"PYTHONUNBUFFERED": "1"}


def down(config: Settings) -> list[str]:
    """End what an earlier `clara up` left behind. Returns the names of what was ended."""
    state = _state(config)
    found = list(_remembered(state))
    _end(found, signal.SIGTERM, wait_s=STOP_S)
    names = [name for name, _ in found]
    if embedded.stop_postgres(config.home):
        names.append("postgres")
    if embedded.stop_valkey(config.home):
        names.append("valkey")
    state.unlink(missing_ok=True)
    return names


def _state(config: Settings) -> Path:
    return config.home / "run" / "processes.json"


def _servers(config: Settings, stack: ExitStack) -> Settings:
    """The settings with an address for every server, embedded ones started."""
    found: dict[str, str] = {}
    if not config.database_url:
        found["database_url"] = stack.enter_context(embedded.postgres(config.home))
    if not config.redis_url:
        found["redis_url"] = stack.enter_context(embedded.valkey(config.home))
    return config.model_copy(update=found)


def _set_logs_aside(config: Settings) -> None:
    """The logs of the last time stay readable, and do not grow for ever."""
    for name in serve.PROCESSES:
        path = config.home / "log" / f"{name}.log"
        if path.exists():
            path.replace(path.with_suffix(".log.1"))


def _start(name: str, config: Settings) -> Process:
    path = config.home / "log" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as sink:
        popen = _popen(name, config, sink)
    return Process(name, popen, path)


def _popen(name: str, config: Settings, sink: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own interpreter and constants
        serve.argv(name, config),
        env=environment(config),
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches the supervisor, which stops them in order
    )


def _stop(processes: list[Process]) -> None:
    """Ask all at once, newest first, then insist."""
    for process in reversed(processes):
        if not process.ended():
            process.popen.terminate()
    ends = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.popen.wait(timeout=max(ends - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            log.warning("%s does not stop and is killed", process.name)
            process.popen.kill()
            process.popen.wait()


def _refuse_busy_ports(config: Settings) -> None:
    wanted = {"CLARA_API_PORT": (config.api_host, config.api_port)}
    wanted["CLARA_FLOWER_PORT"] = (config.flower_host, config.flower_port)
    for setting, (host, port) in wanted.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise PortBusy(
                    f"port {port} on {host} cannot be used: {error.strerror}",
                    field=setting,
                    remedy=f"Stop the program that listens there (`clara down` ends one of ours), "
                    f"or choose another: {setting}={port + 1000 if port < 60000 else port - 1000}",
                ) from error


def _refuse_second(state: Path) -> None:
    alive = [name for name, _ in _remembered(state)]
    if alive:
        raise ServerFailed(
            f"already running from this folder: {', '.join(alive)}",
            field=str(state),
            remedy="Use what runs, end it with Ctrl-C or `clara down`, or set CLARA_HOME to "
            "another folder.",
        )


def _remember(state: Path, running: Running) -> None:
    """Who runs, with start times, since a number may belong to another program later."""
    pids = [("supervisor", os.getpid())] + [(p.name, p.popen.pid) for p in running.processes]
    rows = []
    for name, pid in pids:
        try:
            rows.append({"name": name, "pid": pid, "since": psutil.Process(pid).create_time()})
        except psutil.NoSuchProcess:
            continue
    state.parent.mkdir(parents=True, exist_ok=True)
    draft = state.with_suffix(".draft")
    draft.write_text(json.dumps(rows))
    draft.replace(state)


def _remembered(state: Path) -> Iterator[tuple[str, psutil.Process]]:
    try:
        rows = json.loads(state.read_text())
    except (OSError, ValueError):
        return
    for row in rows:
        try:
            process = psutil.Process(row["pid"])
            if abs(process.create_time() - row["since"]) < 1 and process.pid != os.getpid():
                yield row["name"], process
        except psutil.NoSuchProcess:
            continue


def _end(found: list[tuple[str, psutil.Process]], how: signal.Signals, *, wait_s: float) -> None:
    for _, process in found:
        try:
            process.send_signal(how)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs([process for _, process in found], timeout=wait_s)
    for process in alive:
        process.kill()
