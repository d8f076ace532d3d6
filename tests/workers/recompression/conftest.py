"""A small collection on real stores, two tiny checkpoints, and workers that can be killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import (
    ACTIVE,
    HELD,
    Checkpoint,
    Document,
    DocumentStatus,
    Generation,
    Latent,
    Passage,
    Run,
    RunKind,
    RunStatus,
)
from clara.documents import create_collection, find_collection, write_documents
from clara.errors import Cancelled, ClaraError
from clara.model.checkpoint import load
from clara.model.models import Models, load_models
from clara.passages import FastTokenizer
from clara.pipeline.asking import Answering, Limits
from clara.pipeline.compress import Compressing, compress_collection
from clara.pipeline.index import Indexing
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.latents import PostgresLatents
from clara.retrieval.tantivy import TantivyIndex
from clara.serving.encoding import EncoderOnEngine
from clara.serving.engine import Engine
from clara.settings import Settings
from clara.types import SourceDocument
from tests.clara.pipeline.conftest import index
from tests.factories import make_checkpoint
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder
from workers import children, runs
from workers.enqueue import transaction
from workers.recompression.part import recompress_part
from workers.recompression.queueing import queue_recompress
from workers.recompression.recompressing import recompress

DOC_MAX_LENGTH = 64

TOWNS = ("Aalen", "Bergen", "Cadiz", "Dover", "Evora", "Faro", "Ghent", "Hilden", "Ischia", "Jena")


def documents(count: int, *, first: int = 0) -> list[SourceDocument]:
    """Documents of one passage each, every one about another town and year."""
    return [
        SourceDocument(
            f"The harbour of {TOWNS[n % 10]} was built in {1700 + n} with {n + 3} cranes.",
            external_id=f"harbour-{n}",
        )
        for n in range(first, first + count)
    ]


class Killed(BaseException):
    """As SIGKILL: nothing that handles an error sees it as one."""


class Shelf:
    """The checkpoints of a worker, all loaded."""

    def __init__(self) -> None:
        self.held: dict[UUID, Answering] = {}

    def get(self, checkpoint_id: UUID) -> Answering:
        return self.held[checkpoint_id]

    def compressing(self, checkpoint_id: UUID) -> Compressing:
        ready = self.held[checkpoint_id]
        return Compressing(
            open_db=ready.open_db,
            latents=ready.latents,
            compressor=ready.models.compressor,
            engine=ready.engine,
            tokenizer=ready.tokenizer,
            fingerprint=ready.models.fingerprint,
            doc_max_length=ready.models.checkpoint.config.doc_max_length,
            on_processor=False,
        )


@dataclass
class World:
    """One collection, indexed and answered from checkpoint `old`; `new` has another compressor."""

    db: OpenDb
    collection: UUID
    indexing: Indexing
    shelf: Shelf
    config: Settings
    old: UUID
    new: UUID
    dies: Callable[[], bool] = lambda: False
    """Asked at every commit, before and after it, whether the worker dies there."""
    visits: int = 0
    deaths: int = 0
    lost: Session | None = None
    working: bool = field(default=False)

    def fingerprint(self, checkpoint: UUID) -> str:
        return self.shelf.get(checkpoint).models.fingerprint

    def write(self, given: Sequence[SourceDocument]) -> None:
        """Store and index documents, as an ingest run does."""
        with self.db.begin() as session:
            shop = find_collection(session, "shop")
            ids = [one.id for one in write_documents(session, shop, given)]
        index(ids, self.indexing)

    def compress(self, checkpoint: UUID) -> None:
        """Make what is lacking, as a compress run does."""
        compress_collection(
            self.collection,
            self.shelf.compressing(checkpoint),
            budget_s=60,
            on_batch=lambda _: None,
            stopped=lambda: False,
        )

    def queue(self, checkpoint: UUID, **options: Any) -> UUID:
        """Ask for a recompression."""
        given = {"reason": "asked", "gate": False} | options
        with transaction(self.db) as (session, _):
            run = queue_recompress(
                session, lambda *_: None, self.collection, checkpoint_id=checkpoint, **given
            )
            assert run
            return run.id

    def work(self, run_id: UUID, *, visits: int = 200) -> Run:
        """Work off a recompression and its parts, as workers do, however often they die."""
        for _ in range(visits):
            row = self.run(run_id)
            if row.status not in ACTIVE:
                return row
            self.step()
        raise AssertionError(f"not ended after {visits} visits: {self.run(run_id).phase}")

    def step(self) -> None:
        """One visit to one run that is due; what pauses is due at once."""
        with self.db.begin() as session:
            due = session.scalars(
                select(Run)
                .where(
                    Run.kind.in_([RunKind.RECOMPRESS, RunKind.RECOMPRESS_PART]),
                    Run.status == RunStatus.QUEUED,
                )
                .order_by(Run.kind.desc(), Run.created_at)
            ).first()
        if due is None:
            children.wake_all(self.db)
            return
        held = runs.take(self.db, due.id, lease_s=60)
        assert held
        runs.begin(self.db, held)
        self.visits += 1
        try:
            self._visit(held)
        except Killed:
            assert self.lost
            self.lost.invalidate()  # a process takes its connections with it
            self.deaths += 1
            self._take_back()
            return
        if due.parent_id:
            children.wake(self.db, due.parent_id)

    def _visit(self, held: runs.Held) -> None:
        self.working = True
        try:
            if held.run.kind is RunKind.RECOMPRESS:
                recompress(held, self.shelf, self.db, self.config)  # type: ignore[arg-type]
            else:
                recompress_part(held, self.shelf, self.db)  # type: ignore[arg-type]
        except Cancelled as gone:
            self.working = False
            runs.cancelled(self.db, held, gone)
        except ClaraError as error:
            self.working = False
            runs.fail(self.db, held, error, attempts=1)
        finally:
            self.working = False

    def _take_back(self) -> None:
        """What the reconciler does with the runs of a worker that is gone."""
        with self.db.begin() as session:
            lost = update(Run).where(Run.status.in_(HELD), Run.lease.is_not(None))
            session.execute(lost.values(status=RunStatus.QUEUED, lease=None))

    def run(self, run_id: UUID) -> Run:
        with self.db() as session:
            return session.get_one(Run, run_id)

    def parts(self) -> list[Run]:
        with self.db() as session:
            return list(session.scalars(select(Run).where(Run.kind == RunKind.RECOMPRESS_PART)))

    def generations(self) -> list[tuple[int, str, UUID]]:
        """Number, status and checkpoint, the oldest first."""
        with self.db() as session:
            rows = session.scalars(
                select(Generation)
                .where(Generation.collection_id == self.collection)
                .order_by(Generation.number)
            )
            return [(row.number, row.status.value, row.checkpoint_id) for row in rows]

    def active(self) -> UUID:
        with self.db() as session:
            found = generations.active(session, self.collection)
        assert found
        return found.checkpoint_id

    def latents(self, checkpoint: UUID) -> int:
        with self.db() as session:
            counted = select(func.count()).where(Latent.fingerprint == self.fingerprint(checkpoint))
            return session.scalar(counted) or 0

    def passages(self) -> int:
        with self.db() as session:
            return session.scalar(select(func.count()).select_from(Passage)) or 0

    def statuses(self) -> set[DocumentStatus]:
        with self.db() as session:
            return set(session.scalars(select(Document.status)))

    def alter(self, statement: Any) -> None:
        with self.db.begin() as session:
            session.execute(statement)


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    base = tiny_base(folder / "base")
    tiny_checkpoint(folder / "old", base, rate=4, doc_max_length=DOC_MAX_LENGTH)
    tiny_checkpoint(folder / "new", base, rate=8, doc_max_length=DOC_MAX_LENGTH)
    return folder


@pytest.fixture(scope="package")
def models(folder: Path) -> dict[str, Models]:
    return {name: load_models(load(folder / name), device="cpu") for name in ("old", "new")}


@pytest.fixture(scope="package")
def encoder(folder: Path) -> SentenceEncoder:
    return SentenceEncoder(tiny_encoder(folder / "encoder"))


@pytest.fixture(scope="package")
def model_engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close(drain=False)


@pytest.fixture
def indexing(
    db: OpenDb, folder: Path, encoder: SentenceEncoder, model_engine: Engine, tmp_path: Path
) -> Indexing:
    return Indexing(
        open_db=db,
        lexical=TantivyIndex(tmp_path / "tantivy"),
        dense=FaissIndex(db, encoder=encoder.name, dimension=encoder.dimension),
        encoder=EncoderOnEngine(encoder, model_engine),
        tokenizer=FastTokenizer.from_folder(folder / "base"),
        doc_max_length=DOC_MAX_LENGTH,
    )


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and parts that a dozen passages fill."""
    monkeypatch.setattr("clara.pipeline.recompress.PAGE", 2)
    monkeypatch.setattr("workers.recompression.making.PAGE", 2)
    monkeypatch.setattr("workers.recompression.making.FIRST_PART", 3)
    monkeypatch.setattr("workers.recompression.making.speed", _unmeasured)


def _unmeasured(*_: object) -> Any:
    from clara.pipeline.recompress_plan import UNKNOWN, Estimate

    return Estimate(None, UNKNOWN)


@pytest.fixture
def world(
    db: OpenDb,
    indexing: Indexing,
    models: dict[str, Models],
    model_engine: Engine,
    tmp_path: Path,
) -> Iterator[World]:
    """Twelve documents of one passage, all with the latents of `old`, from which they answer."""
    pool = ThreadPoolExecutor(2)
    shelf = Shelf()
    with db.begin() as session:
        collection = create_collection(session, "shop").id
        rows = {name: _row(session, name, models[name]) for name in ("old", "new")}
    for name, checkpoint in rows.items():
        shelf.held[checkpoint] = Answering(
            open_db=db,
            lexical=indexing.lexical,
            dense=indexing.dense,
            latents=PostgresLatents(db),
            encoder=indexing.encoder,
            tokenizer=indexing.tokenizer,
            models=models[name],
            engine=model_engine,
            pool=pool,
            checkpoint_id=checkpoint,
            limits=Limits(25, 12, 50, min_score=-1.0, max_question_tokens=200),
        )
    config = Settings(
        _env_file=None,
        home=tmp_path,
        recall_margin=1.0,
        agreement_margin=1.0,
        gate_passages=4,
        gate_answers=1,
    )
    world = World(db, collection, indexing, shelf, config, rows["old"], rows["new"])
    world.write(documents(12))
    with db.begin() as session:
        generations.ensure(session, collection, session.get_one(Checkpoint, world.old))
    world.compress(world.old)
    for moment in ("before_commit", "after_commit"):
        event.listen(db, moment, lambda session: _perhaps_die(world, session))
    yield world
    pool.shutdown()


def _perhaps_die(world: World, session: Session) -> None:
    if world.working and world.dies():
        world.working = False  # one death; what the driver commits is no worker's
        world.lost = session
        raise Killed


def dying(seed: int, share: float = 0.3) -> Callable[[], bool]:
    """Dies at random; the same way for the same seed."""
    random = Random(seed)  # noqa: S311 - no secret
    return lambda: random.random() < share


def _row(session: Any, name: str, models: Models) -> UUID:
    return make_checkpoint(
        session,
        name=name,
        path=f"/{name}",
        fingerprint=models.fingerprint,
        weights_hash=models.weights_hash,
        config=models.checkpoint.config.numbers(),
    ).id


def with_limits(world: World, checkpoint: UUID, **limits: Any) -> None:
    """Let one checkpoint search with other limits than the other one."""
    ready = world.shelf.held[checkpoint]
    world.shelf.held[checkpoint] = replace(ready, limits=replace(ready.limits, **limits))
