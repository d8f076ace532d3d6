"""Indices on a cluster: one per generation, behind the alias that all requests go through.

`clara-<collection>` -> `clara-<collection>-1`. A generation that is being built has no alias but
its own, `clara-<collection>.2`; making it the one that is searched is one `_aliases` call.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from elasticsearch import ApiError, BadRequestError, Elasticsearch, NotFoundError
from elasticsearch.helpers import scan

from clara.errors import IndexMismatch, IndexUnavailable
from clara.retrieval.cluster import Cluster, check_bulk

CHUNK_WRITES = 2_000
CHUNK_BYTES = 8_000_000
"""Of one bulk request, where the server takes 100 MB."""

SENDERS = 2
"""Bulk requests under way at once: one is written down here while the other is indexed there."""

PAGE = 5_000
"""Ids read at a time."""

FIRST = 1
"""Number of the generation that a first write makes."""

ACTIVE: Mapping[str, Any] = {"is_write_index": True}
"""Of an alias: the server lets one index at most say so. Two switches at once could each take the
alias from where it was beforehand, and leave it on two."""

SWITCH_TRIES = 10
_TWO_ACTIVE = "more than one write index"


@dataclass(frozen=True)
class Write:
    """One entry to write, or where there is no body, to remove."""

    id: UUID
    body: Mapping[str, Any] | None = None

    def lines(self) -> bytes:
        """The one or two lines of a bulk request, without the last line break."""
        action = "delete" if self.body is None else "index"
        head = json.dumps({action: {"_id": str(self.id)}}).encode()
        return head if self.body is None else head + b"\n" + _json(self.body)


@dataclass(frozen=True)
class Generations:
    """The indices of one kind. `alias` is always the collection's, without a generation."""

    cluster: Cluster
    mappings: Mapping[str, Any]
    remedy: str = "Delete that index, then index the collection's documents again."
    """What to do about an index of another mapping."""

    def address(self, alias: str, generation: int | None) -> str:
        """Alias to send requests to: of one generation, or None for the active one."""
        return alias if generation is None else f"{alias}.{generation}"

    def ensure(self, alias: str, generation: int | None = None) -> None:
        """Create what is written to where there is none; refuse what this release did not make.

        Raises:
            IndexMismatch: an index of another mapping, or in the place of the alias.
        """
        address = self.address(alias, generation)
        found = self.behind(address)
        if not found:
            create = partial(self._create, alias=alias, generation=generation)
            self.cluster.write(create)
            return
        for name, index in found.items():
            if name == address or not self._fits(index["mappings"]):
                raise IndexMismatch(
                    f"index {name!r} on {self.cluster.host} was not made by this release: its "
                    "mapping or its alias was changed",
                    field=name,
                    remedy=self.remedy,
                )

    def behind(self, address: str) -> dict[str, Any]:
        """Description of every index behind an alias, by name; none where there is no alias."""
        return dict(
            self.cluster.read(
                lambda client: client.indices.get(index=address, ignore_unavailable=True)
            )
        )

    def listed(self, alias: str) -> dict[int, bool]:
        """Generations there are, smallest first, and whether each is the active one."""
        found = self.cluster.read(
            lambda client: client.indices.get_alias(index=f"{alias}-*", allow_no_indices=True)
        )
        numbers = {name.removeprefix(f"{alias}-"): index for name, index in found.items()}
        return {
            int(number): alias in numbers[number]["aliases"]
            for number in sorted(filter(str.isdecimal, numbers), key=int)
        }

    def switch(self, alias: str, generation: int) -> None:
        """Make a generation the active one, in one step: every search sees the old or the new one.

        Raises:
            IndexMismatch: there is no such generation, or it has another mapping.
        """
        self.ensure(alias, self._known(alias, generation))
        for _ in range(SWITCH_TRIES):
            if self.cluster.write(partial(_switch, alias=alias, name=f"{alias}-{generation}")):
                return
        raise IndexUnavailable(
            f"others keep switching {alias!r}: given up after {SWITCH_TRIES} times",
            limit=SWITCH_TRIES,
            remedy="Let one process decide which generation is active.",
        )

    def drop(self, alias: str, generation: int) -> None:
        """Delete one generation; one that is not there is no error.

        Raises:
            IndexMismatch: it is the active one.
        """
        if self.listed(alias).get(generation):
            raise IndexMismatch(
                f"generation {generation} of {alias!r} is the one that is searched",
                field=f"{alias}-{generation}",
                remedy="Switch to another generation first, or drop the whole collection.",
            )
        self._delete([f"{alias}-{generation}"])

    def drop_all(self, pattern: str) -> None:
        """Delete every index of a pattern, and with them their aliases."""
        found = self.cluster.read(
            lambda client: client.indices.get_alias(index=pattern, allow_no_indices=True)
        )
        self._delete(list(found))

    def count(self, address: str) -> int:
        """Entries held; 0 where there is no index."""
        found = self.cluster.read(
            lambda client: client.count(index=address, ignore_unavailable=True)
        )
        return int(found["count"])

    def ids(self, pattern: str, query: Mapping[str, Any]) -> set[UUID]:
        """Entries of every index of a pattern that fit a query."""
        found: set[UUID] = set()
        for name in self.behind(pattern):
            found |= self.cluster.write(partial(_scan, name=name, query=query))
        return found

    def remove(self, pattern: str, ids: Iterable[UUID]) -> None:
        """Remove from every index of a pattern: a generation that is kept keeps nothing deleted."""
        writes = [Write(id_) for id_ in ids]
        for name in self.behind(pattern) if writes else ():
            self.bulk(name, writes, require_alias=False)

    def bulk(self, address: str, writes: Iterable[Write], *, require_alias: bool = True) -> None:
        """Write and remove; searchable when this returns.

        Args:
            require_alias: so that a collection dropped in between is not made again by the
                server's guess at a mapping.
        """
        send = partial(self._send, address, require_alias)
        pool = ThreadPoolExecutor(SENDERS, thread_name_prefix="bulk")
        try:
            for _ in pool.map(send, _chunks([write.lines() for write in writes])):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        self.cluster.write(
            lambda client: client.indices.refresh(index=address, ignore_unavailable=True)
        )

    def _send(self, address: str, require_alias: bool, lines: Any) -> None:
        def send(client: Elasticsearch) -> None:
            check_bulk(client.bulk(index=address, operations=lines, require_alias=require_alias))

        self.cluster.write(send)

    def _create(self, client: Elasticsearch, *, alias: str, generation: int | None) -> None:
        """The index of a generation with its own alias; with the collection's where None."""
        number = FIRST if generation is None else generation
        own = self.address(alias, number)
        try:
            client.indices.create(
                index=f"{alias}-{number}",
                mappings=self.mappings,
                settings=self.cluster.settings,
                aliases={own: {}} if generation is not None else {own: {}, alias: ACTIVE},
            )
        except BadRequestError as error:
            if error.error != "resource_already_exists_exception":
                raise
            # another worker was faster, or a release made it that gave no generation an alias
            client.indices.put_alias(index=f"{alias}-{number}", name=own)

    def _known(self, alias: str, generation: int) -> int:
        if generation not in (there := self.listed(alias)):
            raise IndexMismatch(
                f"{alias!r} on {self.cluster.host} has no generation {generation}; there are "
                f"{', '.join(map(str, there)) or 'none'}",
                field=f"{alias}-{generation}",
                remedy="Build it first: write passages with that generation.",
            )
        return generation

    def _delete(self, names: Sequence[str]) -> None:
        if names:
            self.cluster.write(
                lambda client: client.indices.delete(index=names, ignore_unavailable=True)
            )

    def _fits(self, mappings: Mapping[str, Any]) -> bool:
        """Whether an index has our fields as we made them; further settings are allowed."""
        found, wanted = mappings.get("properties", {}), self.mappings["properties"]
        return found.keys() == wanted.keys() and all(
            _includes(found[name], field) for name, field in wanted.items()
        )


def _scan(client: Elasticsearch, name: str, query: Mapping[str, Any]) -> set[UUID]:
    body = {"query": query, "_source": False}
    hits = scan(client, index=name, query=body, size=PAGE, preserve_order=False)
    return {UUID(hit["_id"]) for hit in hits}


def _includes(found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return bool(found == wanted)
    return isinstance(found, Mapping) and all(
        name in found and _includes(found[name], value) for name, value in wanted.items()
    )


def _switch(client: Elasticsearch, *, alias: str, name: str) -> bool:
    """Move the alias; False where somebody else did meanwhile."""
    holders = list(client.indices.get(index=alias, ignore_unavailable=True))
    actions: list[Mapping[str, Any]] = [
        *({"remove": {"index": index, "alias": alias}} for index in holders if index != name),
        {"add": {"index": name, "alias": alias, **ACTIVE}},
    ]
    try:
        client.indices.update_aliases(actions=actions)
    except NotFoundError:  # of a holder that has lost the alias
        return False
    except ApiError as error:
        if _TWO_ACTIVE not in str(error):
            raise
        return False
    return True


def _chunks(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        if chunk and (len(chunk) == CHUNK_WRITES or size + len(line) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield chunk


def _json(body: Mapping[str, Any]) -> bytes:
    """Without half surrogates, which are no text."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "ignore")
