"""How many passages a second are written: all at once, in an index worker's batches, plainly."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter
from uuid import uuid4

from elasticsearch import Elasticsearch
from elasticsearch.helpers import bulk

from clara.retrieval.cluster import Cluster, open_cluster
from clara.retrieval.elasticsearch import MAPPINGS
from clara.retrieval.ports import LexicalIndex
from clara.settings import Settings
from clara.types import PassageText

BATCH = 300
"""Passages of one write of an index worker, about."""

BATCHES = 10
"""Written one after the other; they slow down as an index grows, so these are a beginning."""


def rates(
    passages: Sequence[PassageText],
    lexical: dict[str, LexicalIndex],
    config: Settings,
    *,
    tries: int,
) -> dict[str, float]:
    """Passages a second by way of writing, median of several tries of all ways in turn.

    Beside Elasticsearch stands a plain loop of its client's own helper. What is written is dropped.
    """
    ways: dict[str, Callable[[], float]] = {}
    for name, index in lexical.items():
        ways[f"{name}, in one call"] = partial(_put, index, [passages])
        batches = list(_batches(passages))
        ways[f"{name}, {len(batches)} batches of {BATCH}"] = partial(_put, index, batches)
    if config.elasticsearch_url:
        ways["elasticsearch, the client's helper"] = partial(
            _helper, open_cluster(config), passages
        )
    found = [{name: way() for name, way in ways.items()} for _ in range(tries)]
    return {name: round(statistics.median(one[name] for one in found)) for name in ways}


def _batches(passages: Sequence[PassageText]) -> Iterator[Sequence[PassageText]]:
    for start in range(0, min(len(passages), BATCHES * BATCH), BATCH):
        yield passages[start : start + BATCH]


def _put(index: LexicalIndex, batches: Sequence[Sequence[PassageText]]) -> float:
    """Into a collection of its own."""
    collection = uuid4()
    began = perf_counter()
    try:
        for batch in batches:
            index.put(collection, batch)
        return sum(map(len, batches)) / (perf_counter() - began)
    finally:
        index.drop(collection)


def _helper(cluster: Cluster, passages: Sequence[PassageText]) -> float:
    """Into an index of the same mapping and settings, searchable at the end."""
    name = f"{cluster.prefix}-bench-{uuid4().hex}"
    cluster.write(
        lambda client: client.indices.create(
            index=name, mappings=MAPPINGS, settings=cluster.settings
        )
    )

    def send(client: Elasticsearch) -> None:
        bulk(client, ({"_index": name, "_id": str(one.id), **_body(one)} for one in passages))
        client.indices.refresh(index=name)

    began = perf_counter()
    try:
        cluster.write(send)
        return len(passages) / (perf_counter() - began)
    finally:
        cluster.write(lambda client: client.indices.delete(index=name, ignore_unavailable=True))


def _body(one: PassageText) -> dict[str, str]:
    return {"document_id": str(one.document_id), "title": one.title, "text": one.text}
