"""Servers that go away and come back, while the same objects go on asking."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.engine import make_url

from api.app import create_app
from clara import generations
from clara.db.connect import connect, open_db
from clara.errors import IndexUnavailable
from clara.pipeline.asking import Answering
from clara.pipeline.index import Indexing
from clara.pipeline.retrieve import Retrieved, retrieve
from clara.retrieval.elasticsearch import ElasticsearchIndex
from clara.retrieval.faiss import FaissIndex
from clara.settings import Settings
from clara.types import Mode, SourceDocument
from tests.clara.pipeline.conftest import Ask, Write, cluster_at, index
from tests.factories import make_checkpoint
from workers import bootstrap, enqueue, tasks

WALL = "The harbour wall was built."
BEES = "Bees dance on the comb."

Connect = Callable[[], socket.socket]


class Wire:
    """A port that leads to a server, until it is cut."""

    def __init__(self, to: Connect) -> None:
        self._to = to
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.port = 0
        self.mend()

    def mend(self) -> None:
        """Let connections through, at the same port as ever."""
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """End every connection, and take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = self._to()
                with self._lock:
                    self._open += [here, there]
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=_forward, args=ends, daemon=True).start()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError), closing(source), closing(target):
        while data := source.recv(65_536):
            target.sendall(data)


@pytest.fixture
def wires() -> Iterator[Callable[[Connect], Wire]]:
    with ExitStack() as stack:

        def make(to: Connect) -> Wire:
            wire = Wire(to)
            stack.callback(wire.cut)
            return wire

        yield make


@pytest.fixture
def words(elasticsearch_url: str, wires: Callable[[Connect], Wire]) -> Wire:
    """Between the worker and Elasticsearch."""
    at = urlsplit(elasticsearch_url)
    return wires(lambda: socket.create_connection((at.hostname or "", at.port or 9200)))


@pytest.fixture
def vectors(database_url: str, wires: Callable[[Connect], Wire]) -> Wire:
    """Between the dense index and its log in Postgres; everything else has a way of its own."""
    url = make_url(database_url)
    host = url.host or str(url.query["host"])
    if not host.startswith("/"):
        return wires(lambda: socket.create_connection((host, url.port or 5432)))

    def connect_here() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(f"{host}/.s.PGSQL.{url.port or 5432}")
        return made

    return wires(connect_here)


@pytest.fixture
def exposed(
    answering: Answering,
    words: Wire,
    vectors: Wire,
    database_url: str,
    collection: UUID,
    write: Write,
    indexing: Indexing,
) -> Iterator[Answering]:
    """Answers by way of both wires."""
    cluster = cluster_at(f"http://127.0.0.1:{words.port}", timeout_s=0.5)
    url = make_url(database_url).set(host="127.0.0.1", port=vectors.port, query={})
    engine = connect(url.render_as_string(hide_password=False))
    lexical = ElasticsearchIndex(cluster)
    dense = FaissIndex(
        open_db(engine),
        encoder=answering.encoder.encoder.name,
        dimension=answering.encoder.encoder.dimension,
    )
    index(
        write(SourceDocument(WALL), SourceDocument(BEES)),
        replace(indexing, lexical=lexical, dense=dense),
    )
    yield replace(answering, lexical=lexical, dense=dense)
    words.cut()
    words.mend()
    lexical.drop(collection)
    cluster.close()
    engine.dispose()


def ranks(found: Retrieved) -> dict[str, tuple[bool, bool]]:
    """By text: whether the words and whether the vectors found it."""
    candidates = [(one.read.text, one.read.candidate) for one in found.considered]
    return {t: (c.lexical_rank is not None, c.dense_rank is not None) for t, c in candidates}


def test_without_elasticsearch_the_vectors_answer_until_it_is_back(
    exposed: Answering, words: Wire, ask: Ask
) -> None:
    whole = retrieve(ask("harbour wall", mode=Mode.TEXT), exposed)
    assert whole.degraded == []
    assert ranks(whole) == {WALL: (True, True), BEES: (False, True)}
    words.cut()
    half = retrieve(ask("harbour wall", mode=Mode.TEXT), exposed)
    assert half.degraded == ["lexical"]
    assert ranks(half) == {WALL: (False, True), BEES: (False, True)}
    words.mend()
    again = retrieve(ask("harbour wall", mode=Mode.TEXT), exposed)
    assert (again.degraded, ranks(again)) == ([], ranks(whole))


def test_without_the_log_of_vectors_the_words_answer_until_it_is_back(
    exposed: Answering, vectors: Wire, ask: Ask
) -> None:
    vectors.cut()
    half = retrieve(ask("harbour wall", mode=Mode.TEXT), exposed)
    assert (half.degraded, ranks(half)) == (["dense"], {WALL: (True, False)})
    vectors.mend()
    assert retrieve(ask("harbour wall", mode=Mode.TEXT), exposed).degraded == []


def test_without_both_whoever_waits_gets_a_503_and_the_next_question_an_answer(
    exposed: Answering,
    words: Wire,
    vectors: Wire,
    collection: UUID,
    database_url: str,
    broker_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Settings(
        _env_file=None, database_url=database_url, redis_url=broker_url, home=tmp_path
    )
    with exposed.open_db.begin() as session:
        row = make_checkpoint(session, fingerprint=exposed.fingerprint)
        known = generations.ensure(session, collection, row)
    loaded = SimpleNamespace(serving=lambda _: (exposed, known))
    monkeypatch.setattr(bootstrap, "database", lambda: exposed.open_db)
    monkeypatch.setattr(bootstrap, "loaded", lambda: loaded)
    monkeypatch.setattr(tasks, "settings", lambda: config)
    monkeypatch.setattr(enqueue, "send", lambda _, run_id: tasks.answer_question(str(run_id)))
    body = {"question": "Who built the harbour wall?", "explain": True, "max_answer_tokens": 2}
    with TestClient(create_app(config)) as http:

        def asked() -> Any:
            made = http.post("/v1/questions", json=body | {"collection": "shop"}).json()
            return http.get(f"/v1/questions/{made['id']}?wait=5")

        words.cut()
        half = asked().json()
        assert (half["status"], half["answer"]["degraded"]) == ("succeeded", ["lexical"])
        assert half["explanation"]["degraded"] == ["lexical"]
        vectors.cut()
        none = asked()
        assert none.status_code == 503
        assert none.json()["type"] == "urn:clara:problem:index-unavailable"
        assert "Elasticsearch" in none.json()["detail"]
        found = http.post("/v1/collections/shop/search?wait=5", json={"question": "wall"})
        assert found.status_code == 503
        words.mend()
        vectors.mend()
        assert asked().json()["answer"]["degraded"] == []


def test_both_away_is_one_error_with_both_reasons(
    exposed: Answering, words: Wire, vectors: Wire, ask: Ask
) -> None:
    words.cut()
    vectors.cut()
    with pytest.raises(IndexUnavailable, match=r"Elasticsearch at .*; .*database"):
        retrieve(ask("harbour wall"), exposed)
