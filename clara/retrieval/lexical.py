"""Which lexical index the settings ask for: a cluster where an address is set, else a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clara.retrieval.ports import LexicalIndex
from clara.settings import Settings

if TYPE_CHECKING:
    from clara.retrieval.elasticsearch import ElasticsearchIndex


def lexical_index(config: Settings) -> LexicalIndex:
    """Elasticsearch where `elasticsearch_url` is set, otherwise Tantivy under `home`."""
    if config.elasticsearch_url:
        return elasticsearch_index(config)
    from clara.retrieval.tantivy import TantivyIndex

    return TantivyIndex(config.home / "tantivy")


def elasticsearch_index(config: Settings) -> ElasticsearchIndex:
    """On the cluster of the settings."""
    from clara.retrieval.cluster import open_cluster
    from clara.retrieval.elasticsearch import ElasticsearchIndex

    return ElasticsearchIndex(open_cluster(config))
