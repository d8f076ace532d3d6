"""Latents in Postgres, and the most used ones in memory."""

from __future__ import annotations

import logging
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import delete, select, text, tuple_
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from torch import Tensor

from clara.db.connect import OpenDb
from clara.db.tables import Latent
from clara.errors import DatabaseUnavailable, LatentDamaged
from clara.retrieval.blocks import Packed, pack, unpack
from clara.retrieval.ports import LatentStore
from clara.types import LatentForm

log = logging.getLogger(__name__)

LOOK_S = 60.0
"""Seconds that an audit's mark may take to be heeded everywhere."""

# A passage that is being deleted is locked by its deletion: it is passed over like one that is
# gone, without waiting, so that neither side can hold up the other.
_PUT = text(
    """
    INSERT INTO latent (passage_id, fingerprint, form, block, rows, width, checksum)
    SELECT id, :fingerprint, :form, :block, :rows, :width, :checksum
    FROM passage WHERE id = :passage_id
    FOR KEY SHARE SKIP LOCKED
    ON CONFLICT (passage_id, fingerprint) DO UPDATE SET
        form = excluded.form, block = excluded.block, rows = excluded.rows,
        width = excluded.width, checksum = excluded.checksum, created_at = clock_timestamp()
    """
)

_GET = """
    SELECT passage_id, form, rows, width, checksum, created_at, block
    FROM latent WHERE fingerprint = %s AND passage_id = ANY(%s)
"""


class _Row(NamedTuple):
    passage_id: UUID
    form: str
    rows: int
    width: int
    checksum: int
    created_at: datetime
    block: bytes


class PostgresLatents:
    """LatentStore in the table `latent`.

    Raises DatabaseUnavailable where Postgres does not answer.

    Args:
        form: how blocks are written; any form is read.
        damaged: told of passages whose block was damaged and is deleted, by the thread that asked
            for them, which may hold locks: it must not wait for any.
    """

    def __init__(
        self,
        open_db: OpenDb,
        *,
        form: LatentForm = LatentForm.BF16,
        damaged: Callable[[Sequence[UUID]], object] | None = None,
    ) -> None:
        self._open_db = open_db
        self._form = form
        self._damaged = damaged

    def put(self, fingerprint: str, blocks: Mapping[UUID, Tensor]) -> None:
        """Write blocks (rows, width) in one transaction; deleted passages are left out.

        Raises:
            ValueError: a block that is not two-dimensional.
        """
        if not blocks:
            return
        # in one order, so that two writers of the same blocks do not wait for each other in a ring
        rows = [_row(fingerprint, id_, blocks[id_], self._form) for id_ in sorted(blocks)]
        with _explained(), self._open_db.begin() as db:
            db.execute(_PUT, rows)

    def get(self, fingerprint: str, passages: Sequence[UUID]) -> dict[UUID, Tensor]:
        """Blocks (rows, width) in bfloat16; a damaged one is logged, deleted and left out."""
        found: dict[UUID, Tensor] = {}
        damaged: list[_Row] = []
        for row in self._rows(fingerprint, passages):
            try:
                found[row.passage_id] = _unpack(row)
            except LatentDamaged as error:
                log.warning("deleting a latent of fingerprint %s: %s", fingerprint, error)
                damaged.append(row)
        if damaged:
            self._delete(fingerprint, damaged)
            if self._damaged is not None:
                self._damaged([row.passage_id for row in damaged])
        return found

    def as_text(self, fingerprint: str, passages: Sequence[UUID]) -> set[UUID]:
        """Those whose block is marked as unfaithful."""
        if not passages:
            return set()
        marked = select(Latent.passage_id).where(
            Latent.passage_id.in_(passages), Latent.fingerprint == fingerprint, Latent.serve_as_text
        )
        with _explained(), self._open_db() as db:
            return set(db.scalars(marked))

    def _rows(self, fingerprint: str, passages: Sequence[UUID]) -> list[_Row]:
        """By the driver's own cursor, in binary: as text it takes four times as long."""
        if not passages:
            return []
        with _explained(), self._open_db() as db:
            cursor = db.connection().connection.cursor(binary=True)
            with closing(cursor):
                cursor.execute(_GET, (fingerprint, list(passages)))
                return [_Row(*row) for row in cursor.fetchall()]

    def _delete(self, fingerprint: str, rows: Iterable[_Row]) -> None:
        """The moment of writing too: a sound block written meanwhile stays."""
        written = tuple_(Latent.passage_id, Latent.created_at)
        with _explained(), self._open_db.begin() as db:
            db.execute(
                delete(Latent).where(
                    Latent.fingerprint == fingerprint,
                    written.in_([(row.passage_id, row.created_at) for row in rows]),
                )
            )


class CachedLatents:
    """LatentStore that keeps the blocks read last in memory; safe to share between threads.

    A block never goes stale, since a passage whose text changes gets another id; whether its words
    are read instead does, and is asked for anew after a while. Writing fills nothing: compressing a
    whole collection must not push out what questions use. The tensors are shared between callers,
    who must not change them.

    Args:
        max_bytes: bound of what is kept, in bytes of blocks.
        look_s: seconds until an audit's marks are looked at again.
    """

    def __init__(self, store: LatentStore, max_bytes: int, *, look_s: float = LOOK_S) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._look_s = look_s
        self._lock = Lock()
        self._blocks: OrderedDict[tuple[str, UUID], Tensor] = OrderedDict()
        self._marks: dict[tuple[str, UUID], tuple[bool, float]] = {}
        """Of kept blocks: whether their words are read, and until when that is believed."""
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes of blocks kept now."""
        return self._bytes

    def put(self, fingerprint: str, blocks: Mapping[UUID, Tensor]) -> None:
        """Write to the store; what was kept of these passages is forgotten."""
        self._store.put(fingerprint, blocks)
        with self._lock:
            for passage in blocks:
                self._forget((fingerprint, passage))

    def get(self, fingerprint: str, passages: Sequence[UUID]) -> dict[UUID, Tensor]:
        """From memory where kept, the rest from the store in one call."""
        with self._lock:
            found = {
                p: self._blocks[fingerprint, p]
                for p in passages
                if (fingerprint, p) in self._blocks
            }
            for passage in found:
                self._blocks.move_to_end((fingerprint, passage))
        missing = [passage for passage in passages if passage not in found]
        if missing:
            read = self._store.get(fingerprint, missing)
            with self._lock:
                for passage, block in read.items():
                    self._keep((fingerprint, passage), block)
            found.update(read)
        return found

    def as_text(self, fingerprint: str, passages: Sequence[UUID]) -> set[UUID]:
        """From memory where known of late, the rest from the store in one call."""
        now = monotonic()
        with self._lock:
            marks = {p: self._marks.get((fingerprint, p), (False, now)) for p in passages}
        found = {p for p, (marked, until) in marks.items() if marked and until > now}
        if unknown := [p for p, (_, until) in marks.items() if until <= now]:
            read = self._store.as_text(fingerprint, unknown)
            found |= read
            with self._lock:
                for key in [(fingerprint, p) for p in unknown if (fingerprint, p) in self._blocks]:
                    self._marks[key] = (key[1] in read, now + self._look_s)
        return found

    def _keep(self, key: tuple[str, UUID], block: Tensor) -> None:
        self._forget(key)
        if block.nbytes > self._max_bytes:
            return
        self._blocks[key] = block
        self._bytes += block.nbytes
        while self._bytes > self._max_bytes:
            oldest, dropped = self._blocks.popitem(last=False)
            self._marks.pop(oldest, None)
            self._bytes -= dropped.nbytes

    def _forget(self, key: tuple[str, UUID]) -> None:
        self._marks.pop(key, None)
        block = self._blocks.pop(key, None)
        if block is not None:
            self._bytes -= block.nbytes


def _row(fingerprint: str, passage: UUID, block: Tensor, form: LatentForm) -> dict[str, Any]:
    packed = pack(block, form)
    return {
        "passage_id": passage,
        "fingerprint": fingerprint,
        "checksum": zlib.crc32(packed.block),
        **packed._asdict(),
    }


def _unpack(row: _Row) -> Tensor:
    """Block (rows, width) in bfloat16.

    Raises:
        LatentDamaged: its length does not fit its shape, or its bytes not their checksum.
    """
    checksum = zlib.crc32(row.block)
    if checksum != row.checksum:
        raise LatentDamaged(
            f"the latent of passage {row.passage_id} has checksum {checksum}, stored was "
            f"{row.checksum}"
        )
    try:
        return unpack(Packed(LatentForm(row.form), row.block, row.rows, row.width))
    except LatentDamaged as error:
        raise LatentDamaged(f"the latent of passage {row.passage_id} has {error}") from error


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout, psycopg.OperationalError) as error:
        raise DatabaseUnavailable(
            f"the latents cannot be reached: {error.args[0]}",
            remedy="Check that Postgres runs and that CLARA_DATABASE_URL is right.",
        ) from error
