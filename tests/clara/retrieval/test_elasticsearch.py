from __future__ import annotations

from uuid import UUID, uuid4

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from clara.errors import IndexMismatch, IndexUnavailable
from clara.retrieval import generations
from clara.retrieval.cluster import Cluster
from clara.retrieval.elasticsearch import MAPPINGS, ElasticsearchIndex, searchable
from clara.retrieval.elasticsearch_dense import ElasticsearchDense
from clara.types import PassageText
from tests.clara.retrieval.conftest import PREFIX


def bees(text: str = "bees dance") -> PassageText:
    return PassageText(uuid4(), uuid4(), "", text)


def of(collection: UUID) -> str:
    """The alias of a collection."""
    return f"{PREFIX}-{collection.hex}"


@pytest.fixture
def client(cluster: Cluster) -> Elasticsearch:
    return cluster._client


def test_a_collection_is_one_index_behind_an_alias(
    elasticsearch_index: ElasticsearchIndex, collection: UUID, client: Elasticsearch
) -> None:
    elasticsearch_index.put(collection, [bees()])
    alias = of(collection)
    found = client.indices.get(index=alias)
    assert list(found) == [f"{alias}-1"]
    assert sorted(found[f"{alias}-1"]["aliases"]) == [alias, f"{alias}.1"]
    assert found[f"{alias}-1"]["mappings"] == MAPPINGS


def test_drop_leaves_no_index_of_the_collection(
    elasticsearch_index: ElasticsearchIndex, collection: UUID, client: Elasticsearch
) -> None:
    elasticsearch_index.put(collection, [bees()])
    elasticsearch_index.put(collection, [bees()], generation=2)  # built beside, not active yet
    elasticsearch_index.drop(collection)
    assert not client.indices.get(index=f"{of(collection)}*")


def test_a_mapping_changed_by_hand_is_refused(
    elasticsearch_index: ElasticsearchIndex, collection: UUID, client: Elasticsearch
) -> None:
    alias = of(collection)
    client.indices.create(
        index=f"{alias}-1",
        mappings={"properties": {"text": {"type": "integer"}}},
        aliases={alias: {}},
    )
    with pytest.raises(IndexMismatch, match=f"{alias}-1"):
        elasticsearch_index.put(collection, [bees()])


def test_vectors_of_a_mapping_changed_by_hand_are_refused(
    cluster: Cluster, collection: UUID, client: Elasticsearch
) -> None:
    index = ElasticsearchDense(cluster, encoder="tiny", dimension=8)
    alias = index._alias(collection)
    client.indices.create(
        index=f"{alias}-1",
        mappings={"properties": {"vector": {"type": "dense_vector", "dims": 4}}},
        aliases={alias: {}},
    )
    vector = np.full(8, 8**-0.5, np.float32)
    try:
        with pytest.raises(IndexMismatch, match=f"{alias}-1"):
            index.put(collection, {uuid4(): vector})
        with pytest.raises(IndexMismatch):
            index.search(collection, vector, limit=5)
    finally:
        index.drop(collection)


def test_an_index_in_the_place_of_the_alias_is_refused(
    elasticsearch_index: ElasticsearchIndex, collection: UUID, client: Elasticsearch
) -> None:
    alias = of(collection)
    client.indices.create(index=alias, mappings=MAPPINGS)
    with pytest.raises(IndexMismatch, match=alias):
        elasticsearch_index.put(collection, [bees()])
    client.indices.delete(index=alias)


def test_a_part_that_fails_fails_the_whole(
    elasticsearch_index: ElasticsearchIndex, collection: UUID, client: Elasticsearch
) -> None:
    elasticsearch_index.put(collection, [bees()])
    read_only = "index.blocks.read_only"
    client.indices.put_settings(index=of(collection), settings={read_only: True})
    with pytest.raises(IndexUnavailable, match=r"2 of 2 parts failed.*read-only"):
        elasticsearch_index.put(collection, [bees(), bees()])
    client.indices.put_settings(index=of(collection), settings={read_only: False})


def test_a_batch_of_long_passages_goes_in_several_requests(
    elasticsearch_index: ElasticsearchIndex, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "CHUNK_BYTES", 20_000)
    sent: list[int] = []
    send = generations.Generations._send
    monkeypatch.setattr(
        generations.Generations,
        "_send",
        lambda self, *others: (sent.append(len(others[-1])), send(self, *others)),
    )
    long = "harbour " * 1_000
    elasticsearch_index.put(collection, [bees(long), bees(long), bees(long), bees()])
    assert elasticsearch_index.count(collection) == 4
    assert sorted(sent) == [2, 2]


def test_a_question_is_cut_between_words() -> None:
    words = [f"w{n}" for n in range(300)]
    assert searchable(" ".join(words)).split() == words[:256]
    assert searchable("東" * 300) == "東" * 256
    assert searchable("bees?") == "bees?"
