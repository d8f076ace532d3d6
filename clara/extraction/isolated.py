"""Reading a stranger's file in a process of its own, which may hang, crash or eat memory alone.

The parent writes one line of JSON and the file to the child's standard input; the child answers
with one JSON object. The child gets no environment, so no address or key of ours, and sets its
limits before it parses anything.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from clara import errors
from clara.errors import ClaraError, DamagedFile
from clara.extraction.files import TEXT_SUFFIXES, extract, suffix_of
from clara.texts import check_characters
from clara.types import SourceDocument


def extract_isolated(
    name: str, data: bytes, *, max_chars: int, timeout_s: float = 30.0, memory_mb: int = 1024
) -> SourceDocument:
    """Read one file as `extract` does, in a child process with limits.

    Plain text and Markdown need no parser and no child.

    Args:
        name: as for `extract`.
        data: as for `extract`.
        max_chars: as for `extract`.
        timeout_s: seconds the child may take, its own start (about half a second) included.
        memory_mb: address space the child may take in MiB; interpreter and parsers need some 60.
    Raises:
        DamagedFile: also when a limit was passed or the reader crashed.
        RuntimeError: the child failed for a reason that is not the file.
        ClaraError: whatever `extract` raises.
    """
    check_characters(name, field=name)
    if suffix_of(name) in TEXT_SUFFIXES:
        return extract(name, data, max_chars=max_chars)
    task = {
        "name": name,
        "max_chars": max_chars,
        "memory_mb": memory_mb,
        "cpu_s": math.ceil(timeout_s) + 1,
    }
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "clara.extraction"],
            input=json.dumps(task).encode() + b"\n" + data,
            capture_output=True,
            timeout=timeout_s,
            env=_child_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _too_slow(name, timeout_s) from None
    if child.returncode == -signal.SIGXCPU:
        raise _too_slow(name, timeout_s)
    if child.returncode < 0:
        raise _crashed(name, -child.returncode, memory_mb)
    if child.returncode > 0:
        raise RuntimeError(f"reading {name} failed: {child.stderr.decode(errors='replace')}")
    return _received(name, json.loads(child.stdout), memory_mb)


def serve() -> None:
    """Answer one task: the child's whole life."""
    task = json.loads(sys.stdin.buffer.readline())
    data = sys.stdin.buffer.read()
    _limit(task["memory_mb"], task["cpu_s"])
    # Whatever a parser prints must not mix with the answer, nor fill the parent's memory.
    logging.disable()
    output = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    answer = _answer(task["name"], data, task["max_chars"])
    with output:
        output.write(answer)


def _answer(name: str, data: bytes, max_chars: int) -> bytes:
    """JSON with exactly one of `document`, `error`, `out_of_memory`, `fault`."""
    try:
        document = extract(name, data, max_chars=max_chars)
        return json.dumps({"document": {"text": document.text, "title": document.title}}).encode()
    except ClaraError as error:
        told = {key: getattr(error, key) for key in ("message", "field", "limit", "remedy")}
        answer: dict[str, Any] = {"error": {"class": type(error).__name__, "told": told}}
    except MemoryError:
        answer = {"out_of_memory": True}
    except Exception:
        answer = {"fault": traceback.format_exc()}
    return json.dumps(answer).encode()


def _received(name: str, answer: dict[str, Any], memory_mb: int) -> SourceDocument:
    match answer:
        case {"document": {"text": text, "title": title}}:
            return SourceDocument(text=text, title=title, external_id=name, source=name)
        case {"error": {"class": kind, "told": told}}:
            raise getattr(errors, kind)(**told)
        case {"out_of_memory": True}:
            raise _damaged(name, f"needs more than {memory_mb:,} MiB of memory", memory_mb)
        case _:
            raise RuntimeError(f"reading {name} failed: {answer.get('fault', answer)}")


def _limit(memory_mb: int, cpu_s: int) -> None:
    """Bound this process; the processor limit ends it where the parent died and cannot."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, value in ((resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_AS, memory_mb * 2**20)):
        _, hard = resource.getrlimit(kind)
        if hard == resource.RLIM_INFINITY or value < hard:
            with suppress(ValueError):  # macOS refuses any bound on memory; the others hold
                resource.setrlimit(kind, (value, hard))


def _child_environment() -> dict[str, str]:
    """Where Python finds its libraries and ours, and nothing else."""
    environment = {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    if libraries := os.environ.get("LD_LIBRARY_PATH"):  # some clusters' Python starts only with it
        environment["LD_LIBRARY_PATH"] = libraries
    return environment


def _too_slow(name: str, timeout_s: float) -> DamagedFile:
    return _damaged(name, f"takes longer than {timeout_s:g} seconds to read", timeout_s)


def _crashed(name: str, number: int, memory_mb: int) -> DamagedFile:
    kind = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return _damaged(
        name,
        f"made its reader crash ({kind}), which may use {memory_mb:,} MiB of memory",
        memory_mb,
    )


def _damaged(name: str, what: str, limit: float) -> DamagedFile:
    return DamagedFile(
        f"{name} {what}",
        field=name,
        limit=limit,
        remedy="Split it into smaller files, or save its text as a .txt file.",
    )
