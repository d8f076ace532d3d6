"""The adapters of each port on real servers, and collections of a test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from clara.db.connect import OpenDb
from clara.retrieval.cluster import Cluster
from clara.retrieval.elasticsearch import ElasticsearchIndex
from clara.retrieval.elasticsearch_dense import ElasticsearchDense
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.ports import DenseIndex, LexicalIndex
from clara.retrieval.tantivy import TantivyIndex

PREFIX = "clara-test"

NO_ELASTICSEARCH = (
    "no Elasticsearch: start one with `docker compose up -d elasticsearch` and set "
    "CLARA_ELASTICSEARCH_URL=http://127.0.0.1:9200"
)
NOT_SECURED = (
    "no Elasticsearch that asks for a password: set CLARA_ELASTICSEARCH_USER and _PASSWORD, or "
    "CLARA_TEST_SECURED_ELASTICSEARCH_URL and _PASSWORD for a second one; "
    "`docker compose up -d elasticsearch` starts one with the user `elastic`"
)

Login = dict[str, Any]
MakeDense = Callable[..., DenseIndex]


def lacking(reason: str) -> None:
    """A server that is not there: skipped on a laptop, an error where it is required."""
    if os.environ.get("CLARA_REQUIRE_ELASTICSEARCH") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def elasticsearch_url() -> str:
    url = os.environ.get("CLARA_ELASTICSEARCH_URL", "")
    if not url:
        lacking(NO_ELASTICSEARCH)
    return url


@pytest.fixture(scope="session")
def secured() -> Login:
    """Address, user and password of a server that asks for them."""
    url = os.environ.get("CLARA_TEST_SECURED_ELASTICSEARCH_URL", "")
    if url:
        password = os.environ.get("CLARA_TEST_SECURED_ELASTICSEARCH_PASSWORD", "")
        return {"url": url, "user": "elastic", "password": password}
    user = os.environ.get("CLARA_ELASTICSEARCH_USER", "")
    url = os.environ.get("CLARA_ELASTICSEARCH_URL", "")
    if not (url and user):
        lacking(NOT_SECURED)
    return {"url": url, "user": user, "password": os.environ["CLARA_ELASTICSEARCH_PASSWORD"]}


@pytest.fixture(scope="session")
def cluster(elasticsearch_url: str) -> Iterator[Cluster]:
    cluster = Cluster(
        elasticsearch_url,
        user=os.environ.get("CLARA_ELASTICSEARCH_USER", ""),
        password=os.environ.get("CLARA_ELASTICSEARCH_PASSWORD", ""),
        timeout_s=30,
        prefix=PREFIX,
    )
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def elasticsearch_index(cluster: Cluster) -> ElasticsearchIndex:
    return ElasticsearchIndex(cluster)


@pytest.fixture(scope="session")
def tantivy_index(tmp_path_factory: pytest.TempPathFactory) -> TantivyIndex:
    return TantivyIndex(tmp_path_factory.mktemp("tantivy"))


@pytest.fixture(params=["tantivy", "elasticsearch"])
def lexical_index(request: pytest.FixtureRequest) -> LexicalIndex:
    index: LexicalIndex = request.getfixturevalue(f"{request.param}_index")
    return index


@pytest.fixture(params=["faiss", "elasticsearch"])
def make_dense(request: pytest.FixtureRequest) -> MakeDense:
    """Makes a dense index for `encoder` and `dimension`, on one and the same store each time."""
    if request.param == "faiss":
        db: OpenDb = request.getfixturevalue("db")
        return lambda **options: FaissIndex(db, **options)
    cluster: Cluster = request.getfixturevalue("cluster")
    return lambda **options: ElasticsearchDense(cluster, **options)


@pytest.fixture
def dense_index(make_dense: MakeDense) -> DenseIndex:
    return make_dense(encoder="tiny", dimension=8)


@pytest.fixture
def collection(request: pytest.FixtureRequest) -> Iterator[UUID]:
    """A collection of this test's own, dropped from the indexes the test used."""
    id_ = uuid4()
    yield id_
    for name in ("lexical_index", "dense_index", "elasticsearch_index"):
        if name in request.fixturenames:
            request.getfixturevalue(name).drop(id_)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tantivy"
