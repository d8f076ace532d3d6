"""Lexical search on an Elasticsearch cluster, version 8 or 9.

A collection is one index behind an alias: `clara-<collection>` -> `clara-<collection>-1`. All
requests go through the alias, so that a rebuilt index can take its place in one `_aliases` call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from elastic_transport import ConnectionTimeout, TransportError
from elasticsearch import ApiError, BadRequestError, Elasticsearch

from clara.errors import IndexMismatch, IndexUnavailable
from clara.types import Hit, PassageText

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

CHUNK_PASSAGES = 500
CHUNK_CHARS = 2_000_000
"""Of one bulk request: at most 8 MB in UTF-8, where the server takes 100."""

_WORD = re.compile(r"[^\W\u0e00-\U0010ffff]+|\S")
"""No shorter than the server's words: scripts without spaces count by the character."""

_BUSY = frozenset({429, 502, 503, 504})
_REFUSED = frozenset({401, 403})
_BAD_REQUEST = 400
_PAUSES_S = (0.1, 0.3, 0.9, 2.7)

Action = Mapping[str, Any]
T = TypeVar("T")


class ElasticsearchIndex:
    """LexicalIndex on a cluster; safe to share between threads.

    A request that finds the cluster busy or away is sent again, with growing pauses, until its
    time is used up: every write names its ids, so twice is once.

    Args:
        url: `http(s)://host:port`.
        user: with `password`, unless `api_key` is given.
        ca: certificate authority file for a TLS address.
        timeout_s: seconds one search may take.
        write_timeout_s: seconds one bulk request, or creating or dropping an index, may take.
        prefix: start of every index name, to share a cluster.
        shards: primary shards of a new index.
        replicas: copies of each shard of a new index.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str = "",
        password: str = "",
        api_key: str = "",
        ca: Path | None = None,
        timeout_s: float,
        write_timeout_s: float = 60.0,
        prefix: str = "clara",
        shards: int = 1,
        replicas: int = 0,
    ) -> None:
        parts = urlsplit(url)
        self._host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._write_timeout_s = max(timeout_s, write_timeout_s)
        self._settings = {"number_of_shards": shards, "number_of_replicas": replicas}
        options: dict[str, Any] = {"max_retries": 0}
        if api_key:
            options["api_key"] = api_key
        elif user:
            options["basic_auth"] = (user, password)
        if ca:
            options["ca_certs"] = str(ca)
        try:
            self._client = Elasticsearch(url, **options)
        except (ValueError, OSError) as error:
            raise IndexUnavailable(
                f"cannot use the Elasticsearch address {self._host}: {error}",
                field="CLARA_ELASTICSEARCH_URL",
                remedy="Give http(s)://host:port, and a readable CLARA_ELASTICSEARCH_CA.",
            ) from error

    def ping(self) -> str:
        """The server's version.

        Raises:
            IndexUnavailable: it does not answer.
        """
        info = self._call(lambda client: client.info(), self._timeout_s)
        return str(info["version"]["number"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def put(self, collection: UUID, passages: Sequence[PassageText]) -> None:
        """Write passages by id; searchable when this returns.

        Raises:
            IndexUnavailable: no answer in time, or a part was refused.
            IndexMismatch: the index has another mapping than this release makes.
        """
        if not passages:
            return
        self._ensure(collection)
        self._bulk(
            collection,
            [
                {
                    "index": {"_id": str(passage.id)},
                    "source": {
                        "document_id": str(passage.document_id),
                        "title": passage.title,
                        "text": passage.text,
                    },
                }
                for passage in passages
            ],
        )

    def delete(self, collection: UUID, passages: Iterable[UUID]) -> None:
        """Remove by id; ids that are not there are no error."""
        actions = [{"delete": {"_id": str(id_)}} for id_ in passages]
        if actions and self._indices(collection):
            self._bulk(collection, actions)

    def search(self, collection: UUID, text: str, *, limit: int) -> list[Hit]:
        """Best first; of a very long text the first 256 words count."""
        words = searchable(text)
        if limit < 1 or not words:
            return []
        query = {
            "multi_match": {
                "query": words,
                "fields": ["title", "text"],
                "type": "best_fields",
                "tie_breaker": TIE_BREAKER,
            }
        }
        found = self._call(
            lambda client: client.search(
                index=self._alias(collection),
                query=query,
                size=limit,
                source=False,
                ignore_unavailable=True,
                allow_partial_search_results=False,
            ),
            self._timeout_s,
        )
        hits = [Hit(UUID(hit["_id"]), hit["_score"]) for hit in found["hits"]["hits"]]
        return sorted(hits, key=lambda hit: (-hit.score, hit.passage_id))

    def drop(self, collection: UUID) -> None:
        """Delete every index of the collection, and with them the alias."""
        found = self._call(
            lambda client: client.indices.get_alias(
                index=f"{self._alias(collection)}-*", allow_no_indices=True
            ),
            self._timeout_s,
        )
        if names := list(found):
            self._call(
                lambda client: client.indices.delete(index=names, ignore_unavailable=True),
                self._write_timeout_s,
            )

    def count(self, collection: UUID) -> int:
        """Passages held."""
        found = self._call(
            lambda client: client.count(index=self._alias(collection), ignore_unavailable=True),
            self._timeout_s,
        )
        return int(found["count"])

    def _alias(self, collection: UUID) -> str:
        return f"{self._prefix}-{collection.hex}"

    def _ensure(self, collection: UUID) -> None:
        """Create index and alias where there is none; refuse one this release did not make."""
        alias = self._alias(collection)
        indices = self._indices(collection)
        if not indices:
            self._call(lambda client: self._create(client, alias), self._write_timeout_s)
            return
        for name, index in indices.items():
            if name == alias or not _fits(index["mappings"]):
                raise IndexMismatch(
                    f"index {name!r} on {self._host} was not made by this release: its mapping "
                    "or its alias was changed",
                    field=name,
                    remedy="Delete that index, then index the collection's documents again.",
                )

    def _indices(self, collection: UUID) -> dict[str, Any]:
        """Description of every index behind the alias, by name; none where there is no alias."""
        found = self._call(
            lambda client: client.indices.get(
                index=self._alias(collection), ignore_unavailable=True
            ),
            self._timeout_s,
        )
        return dict(found)

    def _create(self, client: Elasticsearch, alias: str) -> None:
        try:
            client.indices.create(
                index=f"{alias}-1",
                mappings=MAPPINGS,
                settings=self._settings,
                aliases={alias: {}},
            )
        except BadRequestError as error:
            if error.error != "resource_already_exists_exception":  # another worker was faster
                raise

    def _bulk(self, collection: UUID, actions: Sequence[Action]) -> None:
        alias = self._alias(collection)
        for chunk in _chunks(actions):
            operations = [part for action in chunk for part in _operation(action)]
            self._call(partial(_send, alias=alias, operations=operations), self._write_timeout_s)
        self._call(
            lambda client: client.indices.refresh(index=alias, ignore_unavailable=True),
            self._write_timeout_s,
        )

    def _call(self, request: Callable[[Elasticsearch], T], limit_s: float) -> T:
        """Send until it is answered or the time is used up.

        Raises:
            IndexUnavailable: no answer in time, or access was refused.
            IndexMismatch: the server understood and objects to what the index holds.
        """
        ends = monotonic() + limit_s
        pauses = iter(_PAUSES_S)
        while True:
            left = max(ends - monotonic(), 0.001)
            try:
                return request(self._client.options(request_timeout=left))
            except (TransportError, ApiError, _BulkError) as error:
                pause = next(pauses, None)
                if not _may_pass(error) or pause is None or monotonic() + pause >= ends:
                    raise self._explain(error, limit_s) from error
            sleep(pause)

    def _explain(self, error: Exception, limit_s: float) -> IndexUnavailable | IndexMismatch:
        status = _status(error)
        if status is None:
            return IndexUnavailable(
                f"Elasticsearch at {self._host} does not answer: {_reason(error)}",
                limit=limit_s,
                remedy="Check that it runs and that CLARA_ELASTICSEARCH_URL is right.",
            )
        if status in _REFUSED:
            return IndexUnavailable(
                f"Elasticsearch at {self._host} refuses access: {status} {_reason(error)}",
                remedy="Check CLARA_ELASTICSEARCH_USER and CLARA_ELASTICSEARCH_PASSWORD, or "
                "CLARA_ELASTICSEARCH_API_KEY, and what that user may do.",
            )
        if status == _BAD_REQUEST:
            return IndexMismatch(
                f"Elasticsearch at {self._host} objects: {_reason(error)}",
                remedy="If the index was changed by hand, delete it and index the documents again.",
            )
        return IndexUnavailable(
            f"Elasticsearch at {self._host} answers {status}: {_reason(error)}",
            remedy="Look at the cluster's health and log, then try again.",
        )


class _BulkError(Exception):
    """Parts of a bulk request were not carried out, though the request itself was answered."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def searchable(text: str) -> str:
    """The first MAX_WORDS words of a question; half surrogates, which are no text, are left out."""
    text = text.encode("utf-8", "ignore").decode()
    for count, word in enumerate(_WORD.finditer(text)):
        if count == MAX_WORDS:
            return text[: word.start()]
    return text


def _fits(mappings: Mapping[str, Any]) -> bool:
    """Whether an index has our fields as we made them; further settings of a field are allowed."""
    found = mappings.get("properties", {})
    return found.keys() == MAPPINGS["properties"].keys() and all(
        wanted.items() <= found[name].items() for name, wanted in MAPPINGS["properties"].items()
    )


def _chunks(actions: Sequence[Action]) -> Iterator[list[Action]]:
    chunk: list[Action] = []
    chars = 0
    for action in actions:
        source = action.get("source", {})
        size = sum(len(value) for value in source.values())
        if chunk and (len(chunk) == CHUNK_PASSAGES or chars + size > CHUNK_CHARS):
            yield chunk
            chunk, chars = [], 0
        chunk.append(action)
        chars += size
    if chunk:
        yield chunk


def _operation(action: Action) -> Iterator[Mapping[str, Any]]:
    """The one or two lines of a bulk request."""
    yield {name: value for name, value in action.items() if name != "source"}
    if "source" in action:
        yield action["source"]


def _send(client: Elasticsearch, alias: str, operations: Sequence[Mapping[str, Any]]) -> None:
    """One bulk request; a part that failed fails the whole.

    The alias must exist: a collection dropped in between is not made again by the server's
    guess at a mapping.
    """
    answer = client.bulk(index=alias, operations=operations, require_alias=True)
    if not answer["errors"]:
        return
    items = [item for entry in answer["items"] for item in entry.values()]
    failed = [item for item in items if "error" in item]
    if not failed:  # deleting what is not there
        return
    worst = next((item for item in failed if item["status"] not in _BUSY), failed[0])
    raise _BulkError(
        worst["status"],
        f"{len(failed)} of {len(items)} parts failed, the first with "
        f"{worst['error']['type']}: {worst['error']['reason']}",
    )


def _status(error: Exception) -> int | None:
    """HTTP status of an answer; None where there was none."""
    if isinstance(error, _BulkError):
        return error.status
    return error.status_code if isinstance(error, ApiError) else None


def _reason(error: Exception) -> str:
    """What the server, or else the network, says in words."""
    if isinstance(error, ConnectionTimeout):
        return "the time limit has passed"
    if isinstance(error, ApiError) and isinstance(error.body, dict):
        detail = error.body.get("error")
        if isinstance(detail, dict) and "reason" in detail:
            return f"{error.message}: {detail['reason']}"
    return str(getattr(error, "message", error))


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later; a timeout has used its time up."""
    status = _status(error)
    return status in _BUSY if status is not None else not isinstance(error, ConnectionTimeout)
