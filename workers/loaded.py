"""The checkpoints this process holds, and which of them answers for a collection.

A promotion restarts nothing. The next checkpoint is loaded beside the one that answers, by a thread
that takes one processor core; then the switch is a look at another row.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from threading import Lock, Thread
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clara import generations, registry
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Generation, GenerationStatus
from clara.errors import ClaraError
from clara.generations import Known
from clara.pipeline.asking import Answering
from clara.pipeline.compress import Compressing
from clara.serving.engine import Engine
from workers import stopping
from workers.evicting import Evicted
from workers.refusals import Refusals

if TYPE_CHECKING:
    from clara.model.models import Models

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Seconds between two looks at which checkpoints are wanted."""

NEEDED = (GenerationStatus.ACTIVE, GenerationStatus.BUILDING)
"""Generations whose checkpoints are the last to make room."""


class Loaded:
    """Checkpoints by id, at most `bound` of them, the ones used last; safe between threads.

    Args:
        open_db: transactions on the record.
        engine: where models compute.
        loader: a thread that loads while the engine computes, one checkpoint at a time.
        find: a row -> what reads its models; looks its weights through. Both compute.
        serve: a row and its models -> everything that answering needs; computes nothing.
        default: the checkpoint of a collection that has no generation yet.
        bound: checkpoints held at once. With one, it is exchanged on the engine thread, and
            questions wait.
        own_vectors: whether each checkpoint makes its dense vectors itself.
    """

    def __init__(
        self,
        open_db: OpenDb,
        *,
        engine: Engine,
        loader: Engine,
        find: Callable[[Checkpoint], Callable[[], Models]],
        serve: Callable[[Checkpoint, Models], Answering],
        default: Callable[[Session], Checkpoint],
        bound: int,
        own_vectors: bool = False,
    ) -> None:
        self._open_db = open_db
        self._engine = engine
        self._loader = loader
        self._find = find
        self._serve = serve
        self._default = default
        self._bound = bound
        self._own_vectors = own_vectors
        self._lock = Lock()
        self._held: OrderedDict[UUID, Answering] = OrderedDict()
        """The one used last is the last."""
        self._loading: dict[UUID, Future[Answering]] = {}
        self._refusals = Refusals()
        self._needed: frozenset[UUID] = frozenset()

    def peek(self, checkpoint_id: UUID) -> Answering | None:
        """A checkpoint that is loaded, or None; never waits."""
        with self._lock:
            found = self._held.get(checkpoint_id)
            if found is not None:
                self._held.move_to_end(checkpoint_id)
            return found

    def get(self, checkpoint_id: UUID) -> Answering:
        """A checkpoint, loaded first where it is not; waits for that.

        Raises:
            UnknownCheckpoint: no such row.
            InvalidCheckpoint, CheckpointMismatch, ModelMissing: it cannot be loaded; what could not
                be a moment ago is not tried again at once.
        """
        return self.peek(checkpoint_id) or self._load(checkpoint_id).result()

    def load_soon(self, checkpoint_id: UUID) -> None:
        """Have a checkpoint loaded in the background, where it is not; never waits or fails."""
        if self.peek(checkpoint_id) is None and not self._refusals.why(checkpoint_id):
            self._load(checkpoint_id)

    def compressing(self, checkpoint_id: UUID) -> Compressing:
        """What compressing with a checkpoint needs. As `get` otherwise."""
        ready = self.get(checkpoint_id)
        return Compressing(
            open_db=ready.open_db,
            latents=ready.latents,
            compressor=ready.models.compressor,
            engine=ready.engine,
            tokenizer=ready.tokenizer,
            fingerprint=ready.models.fingerprint,
            doc_max_length=ready.models.checkpoint.config.doc_max_length,
            on_processor=ready.models.device.type == "cpu",
            vectors=ready.dense if self._own_vectors else None,
        )

    def serving(self, collection_id: UUID) -> tuple[Answering, Known]:
        """What answers for a collection now, and of which generation: the caller keeps to it.

        The active generation, where its checkpoint is loaded; else the last one that is still kept
        and whose checkpoint is, while the active one's is being loaded; else that one, waited for.
        Where none of their checkpoints can be loaded any more, the default one, over latents of its
        own: until those are made it reads words, as after an update that brought other weights.

        Raises:
            UnknownCollection: it was deleted.
            ClaraError: as `get`, where the default checkpoint cannot be loaded either.
        """
        choices = self._choices(collection_id)
        for known in choices:
            if found := self.peek(known.checkpoint_id):
                self.load_soon(choices[0].checkpoint_id)
                return _reading(found, known), known
        return self._first_that_loads(choices)

    def active(self, collection_id: UUID) -> tuple[Answering, Known]:
        """The same of the active generation, waited for where it is not loaded."""
        known = self.generation(collection_id)
        return _reading(self.get(known.checkpoint_id), known), known

    def generation(self, collection_id: UUID) -> Known:
        """The active generation of a collection: its first one, where there is none yet.

        Raises:
            UnknownCollection: it was deleted.
        """
        with self._open_db.begin() as db:
            found = generations.active(db, collection_id)
            return found or generations.ensure(db, collection_id, self._default(db))

    def default(self) -> Answering:
        """The checkpoint of collections that have no generation yet. As `get` otherwise."""
        with self._open_db() as db:
            row = self._default(db)
        return self.get(row.id)

    def watch(self) -> Thread:
        """Load the checkpoints of active generations before a question has to wait for them."""
        thread = Thread(target=self._watch, name="checkpoints", daemon=True)
        thread.start()
        return thread

    def look(self) -> None:
        """Have what is active loaded, as far as there is room that nothing needed takes."""
        with self._open_db() as db:
            rows = db.execute(
                select(Generation.checkpoint_id, Generation.status)
                .where(Generation.status.in_(NEEDED))
                .distinct()
            ).all()
        active = {row.checkpoint_id for row in rows if row.status is GenerationStatus.ACTIVE}
        with self._lock:
            self._needed = frozenset(row.checkpoint_id for row in rows)
            coming = set(self._held) | set(self._loading)
            room = self._bound - len(coming & self._needed)
        wanted = [one for one in sorted(active - coming) if not self._refusals.why(one)]
        for checkpoint_id in wanted[: max(room, 0)]:
            self.load_soon(checkpoint_id)

    def _watch(self) -> None:
        while not stopping.wait(LOOK_S):
            try:
                self.look()
            except SQLAlchemyError:
                log.warning("could not look which checkpoints are active", exc_info=True)

    def _choices(self, collection_id: UUID) -> Sequence[Known]:
        with self._open_db() as db:
            found = generations.serving(db, collection_id)
        if found and found[0].status is GenerationStatus.ACTIVE:
            return found
        return [self.generation(collection_id)]

    def _first_that_loads(self, choices: Sequence[Known]) -> tuple[Answering, Known]:
        refused: ClaraError | None = None
        for known in choices:
            try:
                return _reading(self.get(known.checkpoint_id), known), known
            except ClaraError as error:
                refused = refused or error
        assert refused is not None  # noqa: S101 - there is always an active generation
        try:
            return self.default(), choices[0]
        except ClaraError:
            raise refused from None

    def _load(self, checkpoint_id: UUID) -> Future[Answering]:
        """The load under way of a checkpoint, or a new one."""
        with self._lock:
            if (under_way := self._loading.get(checkpoint_id)) is not None:
                return under_way
            future = self._loader.submit(lambda: self._bring(checkpoint_id), urgent=True)
            self._loading[checkpoint_id] = future
        future.add_done_callback(lambda _: self._loading.pop(checkpoint_id, None))
        return future

    def _bring(self, checkpoint_id: UUID) -> Answering:
        """On the loader thread: one checkpoint into memory, another one out where it is full."""
        if found := self.peek(checkpoint_id):
            return found
        if refused := self._refusals.why(checkpoint_id):
            raise refused
        with self._open_db() as db:
            row = registry.find(db, str(checkpoint_id))
        try:
            ready = self._serve(row, self._models(row))
        except Exception as error:
            log.exception("checkpoint %s (%s) cannot be loaded", row.name, row.id)
            self._refusals.add(row, error)
        else:
            return self._hold(row, ready)
        refused = self._refusals.why(checkpoint_id)
        assert refused is not None  # noqa: S101 - it was added
        raise refused  # outside of `except`: nothing refers to what was loaded so far

    def _models(self, row: Checkpoint) -> Models:
        """Here, on one core, while others answer; on the engine, on all cores, where none can.

        Looked through before anything makes room for it.
        """
        read = self._find(row)
        self._make_room()
        if self._bound == 1 or not self._held:
            return self._engine.submit(read, urgent=True).result()
        return read()

    def _hold(self, row: Checkpoint, ready: Answering) -> Answering:
        fingerprint = ready.models.fingerprint
        if row.fingerprint != fingerprint:  # a row has the one of the precision it is used in
            with self._open_db.begin() as db:
                db.get_one(Checkpoint, row.id).fingerprint = fingerprint
        self._refusals.forget(row.id)
        with self._lock:
            self._held[row.id] = ready
        log.warning("checkpoint %s (%s), fingerprint %s", row.name, row.id, fingerprint)
        return ready

    def _make_room(self) -> None:
        """Drop what is needed least, and was used longest ago, until one more may come."""
        gone: list[Evicted] = []
        with self._lock:
            while len(self._held) >= self._bound:
                spare = (one for one in self._held if one not in self._needed)
                victim = next(spare, next(iter(self._held)))
                gone.append(Evicted(self._held.pop(victim).models))
        for evicted in gone:
            evicted.wait(self._engine)


def _reading(ready: Answering, known: Known) -> Answering:
    """Over the latents of a generation: they may have been made in another precision."""
    if ready.models.fingerprint == known.fingerprint:
        return ready
    return replace(ready, latents_of=known.fingerprint)
