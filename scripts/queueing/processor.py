"""Whose processor time it was: the API's, the servers', the sender's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from clara.commands.supervisor import Running

Spent = dict[str, float]
"""Seconds by name."""


@contextmanager
def spent(running: Running) -> Iterator[Spent]:
    """Seconds of processor time that the body cost everybody, there once it has ended."""
    found: Spent = {}
    processes = _processes(running)
    before = {name: _seconds(process) for name, process in processes.items()}
    own = time.process_time()
    try:
        yield found
    finally:
        found["sender"] = time.process_time() - own
        found |= {name: _seconds(one) - before[name] for name, one in processes.items()}


def _processes(running: Running) -> dict[str, psutil.Process]:
    home = running.config.home.resolve()
    ours = {one.name: psutil.Process(one.popen.pid) for one in running.processes}
    return ours | {"postgres": _postgres(home), "valkey": _valkey(home)}


def _postgres(home: Path) -> psutil.Process:
    return psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0]))


def _valkey(home: Path) -> psutil.Process:
    """Its working folder is its data's."""
    data = str(home / "valkey")
    return next(
        one
        for one in psutil.process_iter(["name", "cwd"])
        if one.info["cwd"] == data and "valkey" in (one.info["name"] or "")
    )


def _seconds(process: psutil.Process) -> float:
    """Of a process and its children, those that have ended included."""
    times = [process.cpu_times(), *(one.cpu_times() for one in process.children(recursive=True))]
    ended = times[0].children_user + times[0].children_system
    return ended + sum(one.user + one.system for one in times)
