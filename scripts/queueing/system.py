"""A system of its own with tiny models: what is measured is everything but the model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clara.client import Client
from clara.commands import serve
from clara.commands.supervisor import Running, system
from clara.settings import Settings
from clara.types import SourceDocument

COLLECTION = "bench"
READY_S = 120.0

WORDS = ("harbour", "wall", "kettle", "copper", "tea", "glass", "river", "engine", "lamp", "clock")


@contextmanager
def running(config: Settings, only: Sequence[str] = ()) -> Iterator[Running]:
    """Servers and processes, all or some by name, until the API answers; gone at the end."""
    processes = dict(serve.PROCESSES)
    for name in [name for name in processes if only and name not in only]:
        del serve.PROCESSES[name]
    try:
        with system(config) as found, Client(found.api) as client:
            _await(client, found)
            yield found
    finally:
        serve.PROCESSES.update(processes)


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary one that an embedded Postgres may enter as another user."""
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def fill(client: Client, documents: int) -> None:
    """A collection of short documents, with all their latents."""
    client.create_collection(COLLECTION, exist_ok=True)
    texts = [
        f"{WORDS[n % len(WORDS)].capitalize()} number {n} stands near the "
        f"{WORDS[n * 7 % len(WORDS)]}. It was built in {1700 + n}."
        for n in range(documents)
    ]
    sources = [SourceDocument(text, external_id=f"{n}") for n, text in enumerate(texts)]
    for start in range(0, len(sources), 100):
        client.write_documents(COLLECTION, sources[start : start + 100])
    while client.collection(COLLECTION)["documents"]["indexed"] < documents:
        time.sleep(0.2)


def question(number: int) -> str:
    """One of many."""
    return f"When was the {WORDS[number % len(WORDS)]} number {number} built?"


def _await(client: Client, found: Running) -> None:
    ends = time.monotonic() + READY_S
    while not client.ready():
        if time.monotonic() > ends:
            found.check()
            raise TimeoutError(f"the API was not ready within {READY_S:.0f} s")
        time.sleep(0.2)
