"""Which dense index the settings ask for: in each worker's memory, or on Elasticsearch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clara.db.connect import OpenDb
from clara.retrieval.ports import DenseIndex
from clara.settings import Settings

if TYPE_CHECKING:
    from clara.retrieval.elasticsearch_dense import ElasticsearchDense


def dense_index(config: Settings, open_db: OpenDb, *, encoder: str, dimension: int) -> DenseIndex:
    """FAISS over the log in Postgres, or Elasticsearch where `dense_index` says so.

    Args:
        encoder: name of what makes the vectors.
        dimension: numbers per vector.
    Raises:
        InvalidSettings: Elasticsearch is asked for and has no address.
    """
    if config.dense_index == "elasticsearch":
        return elasticsearch_dense(config, encoder=encoder, dimension=dimension)
    from clara.retrieval.faiss import FaissIndex

    return FaissIndex(open_db, encoder=encoder, dimension=dimension, snapshots=config.snapshots)


def elasticsearch_dense(config: Settings, *, encoder: str, dimension: int) -> ElasticsearchDense:
    """On the cluster of the settings."""
    from clara.retrieval.cluster import open_cluster
    from clara.retrieval.elasticsearch_dense import ElasticsearchDense

    return ElasticsearchDense(open_cluster(config), encoder=encoder, dimension=dimension)
