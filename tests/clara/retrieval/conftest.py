"""Both lexical indexes, each with collections of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from clara.retrieval.elasticsearch import ElasticsearchIndex
from clara.retrieval.ports import LexicalIndex
from clara.retrieval.tantivy import TantivyIndex

NO_ELASTICSEARCH = (
    "no Elasticsearch: start one with `docker compose up -d elasticsearch` and set "
    "CLARA_ELASTICSEARCH_URL=http://127.0.0.1:9200"
)


@pytest.fixture(scope="session")
def elasticsearch_url() -> str:
    url = os.environ.get("CLARA_ELASTICSEARCH_URL", "")
    if not url and os.environ.get("CLARA_REQUIRE_ELASTICSEARCH") == "1":
        pytest.fail(NO_ELASTICSEARCH)
    if not url:
        pytest.skip(NO_ELASTICSEARCH)
    return url


@pytest.fixture(scope="session")
def elasticsearch_index(elasticsearch_url: str) -> Iterator[ElasticsearchIndex]:
    index = ElasticsearchIndex(
        elasticsearch_url,
        user=os.environ.get("CLARA_ELASTICSEARCH_USER", ""),
        password=os.environ.get("CLARA_ELASTICSEARCH_PASSWORD", ""),
        timeout_s=10,
        prefix="clara-test",
    )
    yield index
    index.close()


@pytest.fixture(scope="session")
def tantivy_index(tmp_path_factory: pytest.TempPathFactory) -> TantivyIndex:
    return TantivyIndex(tmp_path_factory.mktemp("tantivy"))


@pytest.fixture(params=["tantivy", "elasticsearch"])
def lexical_index(request: pytest.FixtureRequest) -> LexicalIndex:
    index: LexicalIndex = request.getfixturevalue(f"{request.param}_index")
    return index


@pytest.fixture
def collection(request: pytest.FixtureRequest) -> Iterator[UUID]:
    """A collection of this test's own, dropped from the lexical index the test used."""
    id_ = uuid4()
    yield id_
    for name in ("lexical_index", "elasticsearch_index"):
        if name in request.fixturenames:
            request.getfixturevalue(name).drop(id_)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tantivy"
