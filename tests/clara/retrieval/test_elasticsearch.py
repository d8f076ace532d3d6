from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid4

import pytest

from clara.errors import IndexMismatch, IndexUnavailable
from clara.retrieval.elasticsearch import CHUNK_CHARS, MAPPINGS, ElasticsearchIndex, searchable
from clara.types import PassageText


def bees(text: str = "bees dance") -> PassageText:
    return PassageText(uuid4(), uuid4(), "", text)


Answer = tuple[int, dict[str, Any]]


@contextmanager
def answering(answer: Callable[[str, str], Answer]) -> Iterator[str]:
    """A server that says what a cluster in trouble would say."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = answer(self.command, self.path)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815 (http.server's names)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def index_at(url: str, **options: Any) -> Iterator[ElasticsearchIndex]:
    index = ElasticsearchIndex(url, **{"timeout_s": 2, "write_timeout_s": 2} | options)
    yield index
    index.close()


def test_a_collection_is_one_index_behind_an_alias(
    elasticsearch_index: ElasticsearchIndex, collection: UUID
) -> None:
    elasticsearch_index.put(collection, [bees()])
    alias = f"clara-test-{collection.hex}"
    found = elasticsearch_index._client.indices.get(index=alias)
    assert list(found) == [f"{alias}-1"]
    assert list(found[f"{alias}-1"]["aliases"]) == [alias]
    assert found[f"{alias}-1"]["mappings"] == MAPPINGS


def test_drop_leaves_no_index_of_the_collection(
    elasticsearch_index: ElasticsearchIndex, collection: UUID
) -> None:
    elasticsearch_index.put(collection, [bees()])
    alias = f"clara-test-{collection.hex}"
    elasticsearch_index._client.indices.create(index=f"{alias}-2")  # built beside, not active yet
    elasticsearch_index.drop(collection)
    assert not elasticsearch_index._client.indices.get(index=f"{alias}*")


def test_a_mapping_changed_by_hand_is_refused(
    elasticsearch_index: ElasticsearchIndex, collection: UUID
) -> None:
    alias = f"clara-test-{collection.hex}"
    elasticsearch_index._client.indices.create(
        index=f"{alias}-1",
        mappings={"properties": {"text": {"type": "integer"}}},
        aliases={alias: {}},
    )
    with pytest.raises(IndexMismatch, match=f"{alias}-1"):
        elasticsearch_index.put(collection, [bees()])


def test_an_index_in_the_place_of_the_alias_is_refused(
    elasticsearch_index: ElasticsearchIndex, collection: UUID
) -> None:
    alias = f"clara-test-{collection.hex}"
    client = elasticsearch_index._client
    client.indices.create(index=alias, mappings=MAPPINGS)
    with pytest.raises(IndexMismatch, match=alias):
        elasticsearch_index.put(collection, [bees()])
    client.indices.delete(index=alias)


def test_a_part_that_fails_fails_the_whole(
    elasticsearch_index: ElasticsearchIndex, collection: UUID
) -> None:
    elasticsearch_index.put(collection, [bees()])
    alias = f"clara-test-{collection.hex}"
    elasticsearch_index._client.indices.put_settings(
        index=alias, settings={"index.blocks.read_only": True}
    )
    with pytest.raises(IndexUnavailable, match=r"2 of 2 parts failed.*read-only"):
        elasticsearch_index.put(collection, [bees(), bees()])
    elasticsearch_index._client.indices.put_settings(
        index=alias, settings={"index.blocks.read_only": False}
    )


def test_a_batch_of_long_passages_goes_in_several_requests(
    elasticsearch_index: ElasticsearchIndex, collection: UUID
) -> None:
    long = "harbour " * (CHUNK_CHARS // 20)
    elasticsearch_index.put(collection, [bees(long), bees(long), bees(long), bees()])
    assert elasticsearch_index.count(collection) == 4


def test_ping_says_the_version(elasticsearch_index: ElasticsearchIndex) -> None:
    assert int(elasticsearch_index.ping().split(".")[0]) >= 8


def test_an_address_where_nothing_listens_is_an_error_without_credentials() -> None:
    with (
        index_at("http://clara:secret@127.0.0.1:9", timeout_s=0.3) as index,
        pytest.raises(IndexUnavailable, match=r"http://127\.0\.0\.1:9 does not answer") as raised,
    ):
        index.search(uuid4(), "bees", limit=1)
    assert "secret" not in str(raised.value)
    assert "CLARA_ELASTICSEARCH_URL" in str(raised.value)


@pytest.mark.parametrize("url", ["127.0.0.1:9200", "http://127.0.0.1", "ftp:///x"])
def test_an_address_that_is_none_is_an_error_at_once(url: str) -> None:
    with pytest.raises(IndexUnavailable, match="cannot use the Elasticsearch address"):
        ElasticsearchIndex(url, timeout_s=1)


def test_a_server_that_is_slow_is_given_up_at_the_limit() -> None:
    def slow(_: str, __: str) -> Answer:
        time.sleep(1)
        return 200, {}

    started = time.monotonic()
    with answering(slow) as url, index_at(url, timeout_s=0.2) as index:
        with pytest.raises(IndexUnavailable, match="time limit"):
            index.search(uuid4(), "bees", limit=1)
        assert time.monotonic() - started < 0.9


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_cluster_is_asked_again(status: int) -> None:
    answers = iter([(status, {}), (status, {}), (200, {"hits": {"hits": []}})])
    with answering(lambda _, __: next(answers)) as url, index_at(url) as index:
        assert index.search(uuid4(), "bees", limit=1) == []


def test_a_cluster_that_stays_busy_is_an_error_with_its_status() -> None:
    with (
        answering(lambda _, __: (503, {})) as url,
        index_at(url, timeout_s=0.3) as index,
        pytest.raises(IndexUnavailable, match="503"),
    ):
        index.search(uuid4(), "bees", limit=1)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_is_said_at_once_and_names_the_settings(status: int) -> None:
    asked: list[str] = []

    def refuse(_: str, path: str) -> Answer:
        asked.append(path)
        return status, {"error": {"type": "security_exception", "reason": "who are you"}}

    with (
        answering(refuse) as url,
        index_at(url, api_key="secret") as index,
        pytest.raises(IndexUnavailable, match=f"refuses access: {status}") as raised,
    ):
        index.search(uuid4(), "bees", limit=1)
    assert len(asked) == 1
    assert "CLARA_ELASTICSEARCH_PASSWORD" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_parts_a_busy_cluster_rejected_are_sent_again() -> None:
    sent = []

    def answer(method: str, path: str) -> Answer:
        if not path.endswith("_bulk?require_alias=true"):
            mapping = {"x-1": {"mappings": MAPPINGS}}
            return 200, mapping if method == "GET" else {}
        sent.append(path)
        error = {"_id": "1", "status": 429, "error": {"type": "rejected", "reason": "queue"}}
        item = error if len(sent) == 1 else {"_id": "1", "status": 200}
        return 200, {"errors": len(sent) == 1, "items": [{"index": item}]}

    with answering(answer) as url, index_at(url) as index:
        index.put(uuid4(), [bees()])
    assert len(sent) == 2


def test_a_question_is_cut_between_words() -> None:
    words = [f"w{n}" for n in range(300)]
    assert searchable(" ".join(words)).split() == words[:256]
    assert searchable("東" * 300) == "東" * 256
    assert searchable("bees?") == "bees?"
