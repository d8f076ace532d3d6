"""`clara doctor`: checks every server, the model files, disk and memory, and says what to do."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import text

from clara import embedded
from clara.client import Client
from clara.db.connect import connect
from clara.default_models import (
    BASE,
    SENTENCE_ENCODER,
    DefaultModel,
    chosen_answerability,
    chosen_checkpoint,
    is_there,
)
from clara.errors import ClaraError
from clara.settings import Settings

FREE_DISK_GB = 3.0
"""Default models with their download take 0.6 GB, an index of 30,000 passages about 0.8 GB."""

FREE_MEMORY_GB = 2.0
"""Both workers with the default models hold about 1.5 GB."""

GB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine(config: Settings) -> Iterator[Finding]:
    """Look at everything; a check that fails does not stop the next."""
    for name, check in _checks(config).items():
        try:
            yield check(name)
        except ClaraError as error:
            yield Finding(name, False, error.message, error.remedy or "")
        except Exception as error:
            yield Finding(name, False, f"{type(error).__name__}: {error}", "See the message.")


def _checks(config: Settings) -> dict[str, Callable[[str], Finding]]:
    return {
        "postgres": lambda name: _postgres(name, config),
        "redis": lambda name: _redis(name, config),
        "lexical index": lambda name: _lexical(name, config),
        "api": lambda name: _api(name, config),
        "flower": lambda name: _flower(name, config),
        "base model": lambda name: _model(name, config.base_model, BASE, config),
        "sentence encoder": lambda name: _model(
            name, config.sentence_encoder, SENTENCE_ENCODER, config
        ),
        "answerability": lambda name: _answerability(name, config),
        "checkpoint": lambda name: _checkpoint(name, config),
        "disk": lambda name: _disk(name, config),
        "memory": _memory,
    }


def _postgres(name: str, config: Settings) -> Finding:
    if not config.database_url:
        data = config.home / "postgres"
        state = "running" if embedded.postgres_runs(config.home) else "not running"
        return Finding(name, True, f"embedded, {state}, data in {data}; `clara up` starts it")
    engine = connect(config.database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            version = connection.scalar(text("SHOW server_version"))
    except Exception as error:
        reason = str(error).splitlines()[0]
        return Finding(name, False, reason, "Check CLARA_DATABASE_URL and that the server runs.")
    finally:
        engine.dispose()
    return Finding(name, True, f"Postgres {version}")


def _redis(name: str, config: Settings) -> Finding:
    if not config.redis_url:
        return Finding(name, True, "embedded Valkey; `clara up` starts it")
    import redis

    client = redis.Redis.from_url(embedded.client_url(config.redis_url), socket_timeout=3)
    try:
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy")
    except redis.RedisError as error:
        return Finding(name, False, str(error), "Check CLARA_REDIS_URL and that the server runs.")
    finally:
        client.close()
    if policy != "noeviction":
        return Finding(
            name,
            False,
            f"maxmemory-policy is {policy}: queues may be dropped when memory is short",
            "Set maxmemory-policy noeviction.",
        )
    return Finding(name, True, "answers, noeviction")


def _lexical(name: str, config: Settings) -> Finding:
    if not config.elasticsearch_url:
        return Finding(name, True, f"Tantivy, embedded, in {config.home / 'tantivy'}")
    from clara.retrieval.lexical import elasticsearch_index

    return Finding(name, True, f"Elasticsearch {elasticsearch_index(config).ping()}")


def _api(name: str, config: Settings) -> Finding:
    address = f"http://{config.api_host}:{config.api_port}"
    with Client(address) as client:
        if client.ready():
            return Finding(name, True, f"answers at {address}/docs")
    return _port(name, config.api_host, config.api_port, "CLARA_API_PORT")


def _flower(name: str, config: Settings) -> Finding:
    return _port(name, config.flower_host, config.flower_port, "CLARA_FLOWER_PORT")


def _port(name: str, host: str, port: int, setting: str) -> Finding:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return Finding(name, True, f"not running; port {port} is free for `clara up`")
    return Finding(
        name,
        name == "flower",
        f"something listens on port {port}",
        "" if name == "flower" else f"If it is not this project, set {setting} to another port.",
    )


def _model(name: str, given: str, default: DefaultModel, config: Settings) -> Finding:
    if given:
        folder = Path(given)
        if folder.is_dir() and not (folder / "config.json").exists():
            return Finding(name, False, f"{folder} has no config.json", "Give a model folder.")
        return Finding(name, True, str(given))
    if is_there(default, config.models):
        return Finding(name, True, f"{default.folder}, in {config.models}")
    return Finding(
        name, False, f"{default.folder} is not fetched ({default.size})", "clara models fetch"
    )


def _checkpoint(name: str, config: Settings) -> Finding:
    if not config.checkpoint and (shipped := chosen_checkpoint(config)):
        return Finding(name, True, f"the promoted one; where none was, {Path(shipped).name}")
    if not config.checkpoint:
        return Finding(
            name,
            True,
            "the promoted one; where none was, an untrained one at rate "
            f"{config.compression_rate}, and questions are answered from text",
        )
    if Path(config.checkpoint).is_dir():
        return Finding(name, True, config.checkpoint)
    return Finding(
        name, False, f"{config.checkpoint} is not a folder", "Set CLARA_CHECKPOINT to one."
    )


def _answerability(name: str, config: Settings) -> Finding:
    adapter = chosen_answerability(config)
    if adapter is None:
        return Finding(name, True, "no adapter: refusals go by cosine, names and the generator")
    if (adapter / "manifest.json").is_file():
        return Finding(name, True, str(adapter))
    return Finding(
        name,
        False,
        f"{adapter} has no manifest.json",
        "Set CLARA_ANSWERABILITY to a folder that `clara train answerability` wrote.",
    )


def _disk(name: str, config: Settings) -> Finding:
    config.home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(config.home).free / GB
    return Finding(
        name,
        free >= FREE_DISK_GB,
        f"{free:.1f} GB free for {config.home}",
        "" if free >= FREE_DISK_GB else "Free some, or set CLARA_HOME to a larger disk.",
    )


def _memory(name: str) -> Finding:
    free = psutil.virtual_memory().available / GB
    return Finding(
        name,
        free >= FREE_MEMORY_GB,
        f"{free:.1f} GB free",
        "" if free >= FREE_MEMORY_GB else "End other programs, or use a smaller base model.",
    )
