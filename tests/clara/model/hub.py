"""A Hub of our own on this machine: the few requests that fetching a model needs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

Files = Mapping[str, bytes]

CALL = """
import json, sys
from clara.errors import ClaraError
from clara.model.hub import local_folder
for name, options in json.loads(sys.argv[1]):
    try:
        print("ANSWER", json.dumps({"folder": str(local_folder(name, **options))}))
    except ClaraError as error:
        print("ANSWER", json.dumps({"error": error.message, "remedy": error.remedy}))
"""


@dataclass
class Hub:
    """Repositories by name, each with its files by revision."""

    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    broken: bool = False
    """Whether every request fails inside the server."""
    asked: list[str] = field(default_factory=list)
    """Files that were sent."""

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address while it runs."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def use(monkeypatch: pytest.MonkeyPatch, address: str, home: Path) -> None:
    """Let this process, which has read its environment, use the Hub at `address`."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))


def ask(
    address: str, home: Path, *calls: str | tuple[str, dict[str, Any]], offline: bool = False
) -> list[dict[str, Any]]:
    """What `local_folder` gives in a process whose Hub is at `address` and whose cache in `home`.

    Each call is a name, or a name with options. Answers hold `folder`, or `error` and `remedy`.
    """
    given = [(call, {}) if isinstance(call, str) else call for call in calls]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGG"))}
    more = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CALL, json.dumps(given)],
        env=kept | more | ({"HF_HUB_OFFLINE": "1"} if offline else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    return [json.loads(line.removeprefix("ANSWER ")) for line in lines]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.hub.broken:
            return self._send(500, b"", {}, body=body)
        if parts[:2] == ["api", "models"]:
            return self._describe("/".join(parts[2:4]), parts[4:], body=body)
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body=body)
        return self._send(404, b"", {}, body=body)

    def _describe(self, name: str, rest: list[str], *, body: bool) -> None:
        if name in self.hub.gated:
            return self._refuse(403, "GatedRepo", body=body)
        if name not in self.hub.repositories:
            return self._refuse(401, "RepoNotFound", body=body)
        found = self._files(name, rest[1] if len(rest) > 1 else "main")
        if found is None:
            return self._refuse(404, "RevisionNotFound", body=body)
        files = found[1]
        if rest[:1] == ["tree"]:
            content: Any = [_entry(path, data) for path, data in files.items()]
        else:
            content = {"id": name, "sha": found[0], "siblings": [{"rfilename": p} for p in files]}
        kind = {"Content-Type": "application/json"}
        return self._send(200, json.dumps(content).encode(), kind, body=body)

    def _file(self, name: str, revision: str, path: str, *, body: bool) -> None:
        found = self._files(name, revision)
        if found is None or path not in found[1]:
            return self._refuse(404, "EntryNotFound", body=body)
        data = found[1][path]
        if body:
            self.hub.asked.append(path)
        marks = {"X-Repo-Commit": found[0], "ETag": f'"{_oid(data)}"'}
        return self._send(200, data, marks, body=body)

    def _files(self, name: str, revision: str) -> tuple[str, Files] | None:
        for branch, files in self.hub.repositories.get(name, {}).items():
            commit = hashlib.sha1(f"{name}@{branch}".encode()).hexdigest()  # noqa: S324 - an id
            if revision in (branch, commit):
                return commit, files
        return None

    def _refuse(self, status: int, code: str, *, body: bool) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code}, body=body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()  # noqa: S324 - what the Hub names files by
