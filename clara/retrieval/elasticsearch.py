"""Lexical search on an Elasticsearch cluster: BM25 by the English analyzer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from clara.retrieval.cluster import Cluster
from clara.retrieval.generations import Generations, Write
from clara.types import Hit, PassageText
from clara.wording import REBUILD

MAPPINGS: Mapping[str, Any] = {
    "dynamic": "strict",
    "properties": {
        "document_id": {"type": "keyword"},
        "title": {"type": "text", "analyzer": "english"},
        "text": {"type": "text", "analyzer": "english"},
    },
}

TIE_BREAKER = 0.3
"""Share of the weaker field's score: best of 0 to 1 by recall at 25. A title boost did harm."""

MAX_WORDS = 256
"""Words of a question that are searched: two fields make 512 clauses, the server allows 1,024."""

REMEDY = f"{REBUILD} Where an index stands in the place of the alias, delete that one first."

_WORD = re.compile(r"[^\W\u0e00-\U0010ffff]+|\S")
"""No shorter than the server's words: scripts without spaces count by the character."""


class ElasticsearchIndex:
    """LexicalIndex on a cluster; safe to share between threads.

    Reads and writes go to a collection's active generation. With `generation` they go to that
    one: so it is filled and tried beside the active one, until `switch` puts it in its place.
    Deleting concerns every generation.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._indices = Generations(cluster, MAPPINGS, REMEDY)

    def ping(self) -> str:
        """The server's version.

        Raises:
            IndexUnavailable: it does not answer.
        """
        return self._cluster.ping()

    def close(self) -> None:
        """Close the connections."""
        self._cluster.close()

    def put(
        self,
        collection: UUID,
        passages: Sequence[PassageText],
        *,
        generation: int | None = None,
    ) -> None:
        """Write passages by id; searchable when this returns.

        Args:
            generation: made where it is not there yet; number it above those there are.
        Raises:
            IndexUnavailable: no answer in time, or a part was refused.
            IndexMismatch: the index has another mapping than this release makes.
        """
        if not passages:
            return
        alias = self._alias(collection)
        self._indices.ensure(alias, generation)
        writes = [Write(passage.id, _body(passage)) for passage in passages]
        self._indices.bulk(self._indices.address(alias, generation), writes)

    def delete(
        self, collection: UUID, passages: Iterable[UUID], *, generation: int | None = None
    ) -> None:
        """Remove by id from every generation, or from the one that is named; ids that are not
        there are no error."""
        which = "*" if generation is None else generation
        self._indices.remove(f"{self._alias(collection)}-{which}", passages)

    def search(
        self,
        collection: UUID,
        text: str,
        *,
        limit: int,
        only: Collection[UUID] | None = None,
        generation: int | None = None,
    ) -> list[Hit]:
        """Best first; of a very long text the first 256 words count."""
        words = searchable(text)
        if limit < 1 or not words:
            return []
        address = self._indices.address(self._alias(collection), generation)
        found = self._cluster.read(
            lambda client: client.search(
                index=address,
                query=_among(only, _query(words)),
                size=limit,
                source=False,
                ignore_unavailable=True,
                allow_partial_search_results=False,
            )
        )
        hits = [Hit(UUID(hit["_id"]), hit["_score"]) for hit in found["hits"]["hits"]]
        return sorted(hits, key=lambda hit: (-hit.score, hit.passage_id))

    def drop(self, collection: UUID) -> None:
        """Delete every generation of the collection, and with them the alias."""
        self._indices.drop_all(f"{self._alias(collection)}-*")

    def count(self, collection: UUID, *, generation: int | None = None) -> int:
        """Passages held."""
        return self._indices.count(self._indices.address(self._alias(collection), generation))

    def held(self, collection: UUID, document: UUID | None = None) -> set[UUID]:
        """Ids of the passages held by any generation, of one document or of all."""
        query = {"match_all": {}} if document is None else {"term": {"document_id": str(document)}}
        return self._indices.ids(f"{self._alias(collection)}-*", query)

    def make(self, collection: UUID, generation: int) -> None:
        """An empty generation, where there is none of that number."""
        self._indices.ensure(self._alias(collection), generation)

    def generations(self, collection: UUID) -> dict[int, bool]:
        """Generations there are, smallest first, and whether each is the active one."""
        return self._indices.listed(self._alias(collection))

    def switch(self, collection: UUID, generation: int) -> None:
        """Make a generation the active one in one step; the one before stays, to go back to.

        Raises:
            IndexMismatch: there is no such generation.
        """
        self._indices.switch(self._alias(collection), generation)

    def drop_generation(self, collection: UUID, generation: int) -> None:
        """Delete one generation; one that is not there is no error.

        Raises:
            IndexMismatch: it is the active one.
        """
        self._indices.drop(self._alias(collection), generation)

    def _alias(self, collection: UUID) -> str:
        return f"{self._cluster.prefix}-{collection.hex}"


def searchable(text: str) -> str:
    """The first MAX_WORDS words of a question; half surrogates, which are no text, are left out."""
    text = text.encode("utf-8", "ignore").decode()
    for count, word in enumerate(_WORD.finditer(text)):
        if count == MAX_WORDS:
            return text[: word.start()]
    return text


def _body(passage: PassageText) -> dict[str, str]:
    return {
        "document_id": str(passage.document_id),
        "title": passage.title,
        "text": passage.text,
    }


def _among(only: Collection[UUID] | None, query: dict[str, Any]) -> dict[str, Any]:
    """The query over some passages only; they change no score."""
    if only is None:
        return query
    ids = {"ids": {"values": [str(id_) for id_ in only]}}
    return {"bool": {"must": [query], "filter": [ids]}}


def _query(words: str) -> dict[str, Any]:
    return {
        "multi_match": {
            "query": words,
            "fields": ["title", "text"],
            "type": "best_fields",
            "tie_breaker": TIE_BREAKER,
        }
    }
