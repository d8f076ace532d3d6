"""Dense search on an Elasticsearch cluster, for corpora that outgrow one machine's memory.

Every encoder has indices of its own, `clara-dense-<collection>-<encoder>-<generation>`. Needs
version 8.18 or later, which can score what its small vectors found by the large ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from clara.errors import IndexMismatch
from clara.retrieval.cluster import Cluster
from clara.retrieval.generations import Generations, Write
from clara.retrieval.ports import best
from clara.types import Hit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

OVERSAMPLE = 3.0
"""Of `limit`: hits by vectors of one byte a number that are scored again by the whole ones."""

LEAST_LOOKED_AT = 100
LOOKED_AT = 10
"""Neighbours followed in the graph of each shard: this many, or so many times `limit`."""

MOST = 10_000
"""Hits and neighbours the server allows."""

DIGITS = 6
"""After the point, of each number of a vector: finer than the float16 other indexes keep."""


class ElasticsearchDense:
    """DenseIndex on a cluster; safe to share between threads.

    Deleting and dropping concern every encoder and generation; all else this encoder's active
    generation, or the one that is named.

    Args:
        cluster: where it lies.
        encoder: name of what made the vectors; vectors of two encoders are never compared.
        dimension: numbers per vector.
    """

    def __init__(self, cluster: Cluster, *, encoder: str, dimension: int) -> None:
        self.dimension = dimension
        self._cluster = cluster
        self._key = hashlib.sha256(encoder.encode()).hexdigest()[:12]
        self._indices = Generations(cluster, mappings(dimension, encoder))

    def put(
        self,
        collection: UUID,
        vectors: Mapping[UUID, Vector],
        *,
        generation: int | None = None,
    ) -> None:
        """Write unit vectors (dimension,) by passage id; searchable when this returns.

        Raises:
            IndexUnavailable: no answer in time, or a part was refused.
            IndexMismatch: a vector of another dimension, or an index of another mapping.
        """
        for passage, vector in vectors.items():
            if vector.shape != (self.dimension,):
                raise IndexMismatch(
                    f"the vector of passage {passage} has dimension {vector.size}, the index "
                    f"holds {self.dimension}",
                    remedy="Two encoders share one name: give the other one another name, or "
                    "index the documents again.",
                )
        if not vectors:
            return
        alias = self._alias(collection)
        self._indices.ensure(alias, generation)
        writes = [Write(id_, {"vector": _numbers(vector)}) for id_, vector in vectors.items()]
        self._indices.bulk(self._indices.address(alias, generation), writes)

    def delete(self, collection: UUID, passages: Iterable[UUID]) -> None:
        """Remove by id; ids that are not there are no error."""
        self._indices.remove(f"{self._start(collection)}*", passages)

    def drop(self, collection: UUID) -> None:
        """Forget a collection: every encoder and generation."""
        self._indices.drop_all(f"{self._start(collection)}*")

    def search(
        self,
        collection: UUID,
        vector: Vector,
        *,
        limit: int,
        only: Collection[UUID] | None = None,
        generation: int | None = None,
    ) -> list[Hit]:
        """Best first by exact cosine, of the neighbours that the graph leads to."""
        self._check(vector)
        if limit < 1:
            return []
        if only is not None:
            return best(self.scores(collection, vector, list(only), generation=generation), limit)
        wanted = min(limit, MOST)
        knn = {
            "k": wanted,
            "num_candidates": min(MOST, max(LEAST_LOOKED_AT, LOOKED_AT * wanted)),
        }
        found = self._knn(collection, vector, knn, generation)
        return sorted(found, key=lambda hit: (-hit.score, hit.passage_id))

    def scores(
        self,
        collection: UUID,
        vector: Vector,
        passages: Sequence[UUID],
        *,
        generation: int | None = None,
    ) -> dict[UUID, float]:
        """Exact cosine of given passages; those not in the index are left out."""
        self._check(vector)
        found: dict[UUID, float] = {}
        for start in range(0, len(passages), MOST):
            some = passages[start : start + MOST]
            knn = {
                "k": len(some),
                "num_candidates": len(some),
                "filter": {"ids": {"values": [str(id_) for id_ in some]}},
            }
            hits = self._knn(collection, vector, knn, generation)
            found |= {hit.passage_id: hit.score for hit in hits}
        return {id_: found[id_] for id_ in passages if id_ in found}

    def count(self, collection: UUID, *, generation: int | None = None) -> int:
        """Vectors held."""
        return self._indices.count(self._indices.address(self._alias(collection), generation))

    def held(self, collection: UUID) -> set[UUID]:
        """Ids of the passages that have a vector of any encoder and generation."""
        return self._indices.ids(f"{self._start(collection)}*", {"match_all": {}})

    def generations(self, collection: UUID) -> dict[int, bool]:
        """This encoder's generations, smallest first, and whether each is the active one."""
        return self._indices.listed(self._alias(collection))

    def switch(self, collection: UUID, generation: int) -> None:
        """Make a generation the active one in one step. Errors as the lexical index's."""
        self._indices.switch(self._alias(collection), generation)

    def drop_generation(self, collection: UUID, generation: int) -> None:
        """Delete one generation that is not the active one."""
        self._indices.drop(self._alias(collection), generation)

    def _start(self, collection: UUID) -> str:
        return f"{self._cluster.prefix}-dense-{collection.hex}-"

    def _alias(self, collection: UUID) -> str:
        return f"{self._start(collection)}{self._key}"

    def _knn(
        self, collection: UUID, vector: Vector, knn: Mapping[str, Any], generation: int | None
    ) -> list[Hit]:
        address = self._indices.address(self._alias(collection), generation)
        whole = {"field": "vector", "query_vector": _numbers(vector), **knn}
        whole["rescore_vector"] = {"oversample": OVERSAMPLE}
        found = self._cluster.read(
            lambda client: client.search(
                index=address,
                knn=whole,
                size=whole["k"],
                source=False,
                ignore_unavailable=True,
                allow_partial_search_results=False,
            )
        )
        return [Hit(UUID(hit["_id"]), _cosine(hit["_score"])) for hit in found["hits"]["hits"]]

    def _check(self, vector: Vector) -> None:
        if vector.shape != (self.dimension,):
            raise IndexMismatch(
                f"the question's vector has shape {vector.shape}, the index holds "
                f"({self.dimension},)",
                remedy="Ask with the encoder the collection was indexed with.",
            )


def mappings(dimension: int, encoder: str) -> dict[str, Any]:
    """One field. The vector is kept once, in the index: the copy in `_source` would be text."""
    return {
        "dynamic": "strict",
        "_source": {"enabled": False},
        "_meta": {"encoder": encoder},
        "properties": {
            "vector": {
                "type": "dense_vector",
                "dims": dimension,
                "index": True,
                "similarity": "cosine",
                "index_options": {"type": "int8_hnsw"},
            }
        },
    }


def _numbers(vector: Vector) -> list[float]:
    rounded: list[float] = vector.astype(float).round(DIGITS).tolist()
    return rounded


def _cosine(score: float) -> float:
    """The server's scores are none below zero: half of one more than the cosine."""
    return min(1.0, max(-1.0, 2 * score - 1))
