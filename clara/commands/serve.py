"""The long-running processes: one list for `clara up`, `clara serve` and docker-compose.yml."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from clara.errors import ServerFailed
from clara.settings import Settings

MODEL_THREADS = 8
"""Tasks of the model worker at once; they only wait, one engine thread owns the model."""

CPU_THREADS = 2
"""Tasks of the CPU worker at once: one embeds while the other waits for a server."""

Argv = list[str]


def argv(name: str, config: Settings) -> Argv:
    """The command line of one process, by this interpreter."""
    return [sys.executable, "-m", *PROCESSES[name](config)]


def run(name: str, config: Settings) -> None:
    """Become that process.

    Raises:
        ServerFailed: an address it needs is not set; only `clara up` starts servers of its own.
    """
    for setting, address in _needed(name, config).items():
        if not address:
            raise ServerFailed(
                f"{name} needs an address in {setting}",
                field=setting,
                remedy="Set it, or use `clara up`, which starts servers and processes together.",
            )
    command = argv(name, config)
    os.execv(command[0], command)  # noqa: S606 - our own interpreter and constants


def _needed(name: str, config: Settings) -> dict[str, str]:
    broker = {"CLARA_REDIS_URL": config.redis_url}
    if name in ("beat", "flower"):
        return broker
    return broker | {"CLARA_DATABASE_URL": config.database_url}


def _api(config: Settings) -> Argv:
    level = config.log_level.lower()
    listen = ["--host", config.api_host, "--port", str(config.api_port)]
    several = ["--workers", str(config.api_processes)] if config.api_processes > 1 else []
    return ["uvicorn", "api.app:app", *listen, *several, "--log-level", level, "--no-access-log"]


def _worker(config: Settings, name: str, queues: str, threads: int) -> Argv:
    # threads: torch does not survive a fork, and `solo` would block heartbeats
    pool = ["--pool", "threads", "--concurrency", str(threads)]
    queues = f"upkeep,{queues}"  # of every worker, before its own: see workers/app.py
    return [
        *["celery", "-A", "workers.app", "worker", "-n", f"{name}@%h", "-Q", queues, *pool],
        *["--task-events", "--without-mingle", "--loglevel", config.log_level],
    ]


def _model_worker(config: Settings) -> Argv:
    return _worker(config, "model", "query,compress,recompress", MODEL_THREADS)


def _cpu_worker(config: Settings) -> Argv:
    return _worker(config, "cpu", "ingest", CPU_THREADS)


def _train_worker(config: Settings) -> Argv:
    return _worker(config, "train", "train", 1)


def _beat(config: Settings) -> Argv:
    schedule = str(config.home / "beat-schedule")
    return [
        *["celery", "-A", "workers.app", "beat", "--pidfile=", "--schedule", schedule],
        *["--loglevel", config.log_level],
    ]


def _flower(config: Settings) -> Argv:
    listen = [f"--address={config.flower_host}", f"--port={config.flower_port}"]
    return ["celery", "-A", "workers.app", "flower", *listen, "--max_tasks=10000"]


PROCESSES: dict[str, Callable[[Settings], Argv]] = {
    "api": _api,
    "model-worker": _model_worker,
    "cpu-worker": _cpu_worker,
    "train-worker": _train_worker,
    "beat": _beat,
    "flower": _flower,
}
