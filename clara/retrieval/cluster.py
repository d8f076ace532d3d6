"""Talking to an Elasticsearch cluster, version 8.19 or 9: login, retries, errors in our words."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.parse import urlsplit

from elastic_transport import ConnectionTimeout, TlsError, TransportError
from elasticsearch import ApiError, Elasticsearch

from clara.errors import IndexMismatch, IndexUnavailable, InvalidSettings
from clara.settings import Settings

_BUSY = frozenset({429, 502, 503, 504})
_REFUSED = frozenset({401, 403})
_BAD_REQUEST = 400
_PAUSES_S = (0.1, 0.3, 0.9, 2.7)

T = TypeVar("T")


class Cluster:
    """One cluster; safe to share between threads and between the indexes that live on it.

    A request that finds the cluster busy or away is sent again, with growing pauses, until its
    time is used up: every write names its ids, so twice is once.

    Args:
        url: `http(s)://host:port`.
        user: with `password`, unless `api_key` is given.
        ca: certificate authority file for a TLS address; without it the system's own are trusted.
        timeout_s: seconds one search may take.
        write_timeout_s: seconds one bulk request, or creating or dropping an index, may take.
        prefix: start of every index name, to share a cluster.
        shards: primary shards of a new index.
        replicas: copies of each shard of a new index.
    Raises:
        IndexUnavailable: an address that is none, or a CA file that cannot be read.
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
        self.host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self.prefix = prefix
        self.settings = {"number_of_shards": shards, "number_of_replicas": replicas}
        self._timeout_s = timeout_s
        self._write_timeout_s = max(timeout_s, write_timeout_s)
        options: dict[str, Any] = {"max_retries": 0}
        if api_key:
            options["api_key"] = api_key
        elif user:
            options["basic_auth"] = (user, password)
        try:
            if ca:
                ssl.create_default_context(cafile=str(ca))  # the client would find out later
                options["ca_certs"] = str(ca)
            self._client = Elasticsearch(url, **options)
        except (ValueError, OSError) as error:
            raise IndexUnavailable(
                f"cannot use the Elasticsearch address {self.host}: {error}",
                field="CLARA_ELASTICSEARCH_URL",
                remedy="Give http(s)://host:port, and a readable CLARA_ELASTICSEARCH_CA.",
            ) from error

    def ping(self) -> str:
        """The server's version.

        Raises:
            IndexUnavailable: it does not answer.
        """
        return str(self.read(lambda client: client.info())["version"]["number"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def read(self, request: Callable[[Elasticsearch], T]) -> T:
        """Send within the time of a search. Errors as `write`."""
        return self._call(request, self._timeout_s)

    def write(self, request: Callable[[Elasticsearch], T]) -> T:
        """Send within the time of a write, until it is answered.

        Raises:
            IndexUnavailable: no answer in time, or access was refused.
            IndexMismatch: the server understood and objects to what the index holds.
        """
        return self._call(request, self._write_timeout_s)

    def _call(self, request: Callable[[Elasticsearch], T], limit_s: float) -> T:
        ends = monotonic() + limit_s
        pauses = iter(_PAUSES_S)
        while True:
            left = max(ends - monotonic(), 0.001)
            try:
                return request(self._client.options(request_timeout=left))
            except (TransportError, ApiError, BulkError) as error:
                pause = next(pauses, None)
                if not _may_pass(error) or pause is None or monotonic() + pause >= ends:
                    raise self._explain(error, limit_s) from error
            sleep(pause)

    def _explain(self, error: Exception, limit_s: float) -> IndexUnavailable | IndexMismatch:
        status = _status(error)
        if isinstance(error, TlsError):
            return IndexUnavailable(
                f"Elasticsearch at {self.host} shows a certificate nobody vouches for: "
                f"{_reason(error)}",
                field="CLARA_ELASTICSEARCH_CA",
                remedy="Name the file of the authority that signed it in CLARA_ELASTICSEARCH_CA, "
                "and use the host name the certificate is for.",
            )
        if status is None:
            return IndexUnavailable(
                f"Elasticsearch at {self.host} does not answer: {_reason(error)}",
                limit=limit_s,
                remedy="Check that it runs and that CLARA_ELASTICSEARCH_URL is right.",
            )
        if status in _REFUSED:
            return IndexUnavailable(
                f"Elasticsearch at {self.host} refuses access: {status} {_reason(error)}",
                remedy="Check CLARA_ELASTICSEARCH_USER and CLARA_ELASTICSEARCH_PASSWORD, or "
                "CLARA_ELASTICSEARCH_API_KEY, and what that user may do.",
            )
        if status == _BAD_REQUEST:
            return IndexMismatch(
                f"Elasticsearch at {self.host} objects: {_reason(error)}",
                remedy="If the index was changed by hand, delete it and index the documents again.",
            )
        return IndexUnavailable(
            f"Elasticsearch at {self.host} answers {status}: {_reason(error)}",
            remedy="Look at the cluster's health and log, then try again.",
        )


def open_cluster(config: Settings) -> Cluster:
    """The cluster of the settings.

    Raises:
        InvalidSettings: no address is set.
        IndexUnavailable: the address is none.
    """
    if not config.elasticsearch_url:
        raise InvalidSettings(
            "Elasticsearch is asked for and no address is set",
            field="CLARA_ELASTICSEARCH_URL",
            remedy="Set it to http(s)://host:port, or leave CLARA_DENSE_INDEX at `faiss`.",
        )
    return Cluster(
        config.elasticsearch_url,
        user=config.elasticsearch_user,
        password=config.elasticsearch_password.get_secret_value(),
        api_key=config.elasticsearch_api_key.get_secret_value(),
        ca=config.elasticsearch_ca,
        timeout_s=config.index_timeout_s,
    )


class BulkError(Exception):
    """Parts of a bulk request were not carried out, though the request itself was answered."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def check_bulk(answer: Any) -> None:
    """Raises BulkError where a part of a bulk request failed; deleting what is gone is none."""
    if not answer["errors"]:
        return
    items = [item for entry in answer["items"] for item in entry.values()]
    failed = [item for item in items if "error" in item]
    if not failed:
        return
    worst = next((item for item in failed if item["status"] not in _BUSY), failed[0])
    raise BulkError(
        worst["status"],
        f"{len(failed)} of {len(items)} parts failed, the first with "
        f"{worst['error']['type']}: {worst['error']['reason']}",
    )


def _status(error: Exception) -> int | None:
    """HTTP status of an answer; None where there was none."""
    if isinstance(error, BulkError):
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
    """Whether the same request may succeed a moment later.

    A timeout has used its time up, and a certificate does not change.
    """
    status = _status(error)
    if status is not None:
        return status in _BUSY
    return not isinstance(error, ConnectionTimeout | TlsError)
