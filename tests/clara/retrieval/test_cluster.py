from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clara.errors import IndexUnavailable, InvalidSettings
from clara.retrieval.cluster import Cluster, open_cluster
from clara.retrieval.elasticsearch import MAPPINGS, ElasticsearchIndex
from clara.settings import Settings
from clara.types import PassageText
from tests.clara.retrieval.clusters import Answer, answering, certificate

NOTHING: Answer = (200, {"hits": {"hits": []}})


def bees() -> PassageText:
    return PassageText(uuid4(), uuid4(), "", "bees dance")


@contextmanager
def index_at(url: str, **options: Any) -> Iterator[ElasticsearchIndex]:
    index = ElasticsearchIndex(Cluster(url, **{"timeout_s": 2, "write_timeout_s": 2} | options))
    yield index
    index.close()


def test_ping_says_the_version(cluster: Cluster) -> None:
    assert int(cluster.ping().split(".")[0]) >= 8


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
        Cluster(url, timeout_s=1)


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


def test_an_api_key_is_shown_instead_of_the_password() -> None:
    shown: list[str] = []
    with answering(lambda _, __: NOTHING, logins=shown) as url:
        for login in ({}, {"user": "u", "password": "p"}, {"user": "u", "api_key": "k"}):
            with index_at(url, **login) as index:
                index.search(uuid4(), "bees", limit=1)
    assert shown == ["", "Basic dTpw", "ApiKey k"]


def test_a_certificate_is_accepted_where_its_authority_is_named(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    with answering(lambda _, __: NOTHING, tls=made.server) as url:
        with index_at(url, ca=made.authority) as index:
            assert index.search(uuid4(), "bees", limit=1) == []
        with index_at(url) as index, pytest.raises(IndexUnavailable) as raised:
            index.search(uuid4(), "bees", limit=1)
    assert "certificate nobody vouches for" in raised.value.message
    assert raised.value.field == "CLARA_ELASTICSEARCH_CA"


def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    made = certificate(tmp_path, host="elsewhere.example")
    with (
        answering(lambda _, __: NOTHING, tls=made.server) as url,
        index_at(url, ca=made.authority) as index,
        pytest.raises(IndexUnavailable, match="certificate nobody vouches for"),
    ):
        index.search(uuid4(), "bees", limit=1)


def test_an_authority_that_cannot_be_read_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(IndexUnavailable, match="cannot use the Elasticsearch address"):
        Cluster("https://127.0.0.1:9200", ca=tmp_path / "none.pem", timeout_s=1)


def test_settings_without_an_address_name_the_one_that_is_missing() -> None:
    with pytest.raises(InvalidSettings) as raised:
        open_cluster(Settings(elasticsearch_url=""))
    assert raised.value.field == "CLARA_ELASTICSEARCH_URL"
