"""Logging in, on a server that asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from elasticsearch import BadRequestError, Elasticsearch

from clara.errors import IndexUnavailable
from clara.retrieval.cluster import Cluster
from clara.retrieval.elasticsearch import ElasticsearchIndex
from clara.types import PassageText
from tests.clara.retrieval.conftest import PREFIX, Login

BEES = PassageText(uuid4(), uuid4(), "", "bees dance")


@pytest.fixture
def filled(secured: Login) -> Iterator[UUID]:
    """A collection with one passage."""
    index, collection = ElasticsearchIndex(login(secured)), uuid4()
    index.put(collection, [BEES])
    yield collection
    index.drop(collection)
    index.close()


def login(secured: Login, **other: str) -> Cluster:
    return Cluster(**(secured | other), timeout_s=30, prefix=PREFIX)


def found(cluster: Cluster, collection: UUID) -> list[UUID]:
    try:
        hits = ElasticsearchIndex(cluster).search(collection, "bees", limit=5)
        return [hit.passage_id for hit in hits]
    finally:
        cluster.close()


def test_the_right_password_opens(secured: Login, filled: UUID) -> None:
    assert found(login(secured), filled) == [BEES.id]


@pytest.mark.parametrize(
    "wrong", [{"password": "guessed"}, {"user": "", "password": ""}, {"api_key": "bm9uZTpub25l"}]
)
def test_a_wrong_login_is_refused_in_words_that_hide_it(
    secured: Login, filled: UUID, wrong: dict[str, str]
) -> None:
    with pytest.raises(IndexUnavailable, match="refuses access: 401") as raised:
        found(login(secured, **wrong), filled)
    assert secured["password"] not in str(raised.value)
    assert "guessed" not in str(raised.value)


def test_an_api_key_opens_what_it_is_for(secured: Login, filled: UUID) -> None:
    admin = Elasticsearch(
        secured["url"], basic_auth=(secured["user"], secured["password"]), request_timeout=30
    )
    may = {"names": [f"{PREFIX}-*"], "privileges": ["read", "view_index_metadata"]}
    rights = {"test": {"indices": [may]}}
    try:
        made = admin.security.create_api_key(name="clara-test", role_descriptors=rights)
    except BadRequestError as error:
        pytest.skip(f"this server lacks modules that API keys need: {error.body}")
    key = {"user": "", "password": "", "api_key": made["encoded"]}
    assert found(login(secured, **key), filled) == [BEES.id]
    with pytest.raises(IndexUnavailable, match="refuses access: 403"):
        ElasticsearchIndex(login(secured, **key)).put(filled, [BEES])
    admin.security.invalidate_api_key(ids=[made["id"]])
    admin.close()
