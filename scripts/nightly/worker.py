"""One worker of one thread, in this process, over a Postgres and a Valkey of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import select

from clara import embedded, generations
from clara.db.connect import OpenDb, connect, open_db
from clara.db.migrate import migrate
from clara.db.tables import ACTIVE, Checkpoint, Night, Run, RunKind, RunStatus
from clara.documents import create_collection
from clara.model.checkpoint import untrained
from clara.model.models import Models, load_models
from clara.passages import FastTokenizer
from clara.pipeline.asking import Answering, Limits
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.latents import PostgresLatents
from clara.retrieval.tantivy import TantivyIndex
from clara.serving.encoding import EncoderOnEngine
from clara.serving.engine import Engine
from clara.settings import Settings
from tests.factories import make_checkpoint
from tests.tiny import tiny_base, tiny_encoder
from workers import children, compressing, runs
from workers.app import app, configure
from workers.loaded import Loaded
from workers.nights import nights
from workers.recompression import recompressing

RATE, DOC_MAX_LENGTH = 16, 128
COLLECTION = "bench"
FIRST_TICK = datetime(2026, 11, 1, 2, tzinfo=UTC)
KINDS = (RunKind.NIGHT, RunKind.RECOMPRESS, RunKind.RECOMPRESS_PART, RunKind.COMPRESS)


@dataclass
class Worker:
    """A collection that answers from `checkpoint`, and what works on it."""

    config: Settings
    open_db: OpenDb
    collection: UUID
    checkpoint: UUID
    models: Models
    loaded: Loaded
    tokenizer: FastTokenizer
    tick: datetime = field(default=FIRST_TICK)

    def night(self) -> dict[str, object]:
        """A whole night, from the look at the schedule to its report; returns that."""
        self.tick += timedelta(days=1)
        night = nights.look_at_schedule(self.open_db, self.config, now=self.tick)
        assert night  # noqa: S101 - one is due each day
        self.work()
        with self.open_db() as db:
            row = db.get_one(Night, night)
            assert row.finished_at, row.report  # noqa: S101 - it was worked off
            (entry,) = row.report["collections"].values()
            return dict(entry)

    def work(self) -> None:
        """Work off what is queued until nothing is left to do."""
        while (run_id := self._due()) or self._somebody_waits():
            if run_id is None:
                children.wake_all(self.open_db)
                continue
            held = runs.take(self.open_db, run_id, lease_s=600)
            assert held  # noqa: S101 - nobody else works here
            runs.begin(self.open_db, held)
            self._visit(held)
            if held.run.parent_id:
                children.wake(self.open_db, held.run.parent_id)

    def _visit(self, held: runs.Held) -> None:
        if held.run.kind is RunKind.NIGHT:
            nightly = nights.Nightly(
                self.open_db,
                self.loaded,
                lambda db: db.get_one(Checkpoint, self.checkpoint),
                self.config,
            )
            nights.work_off(held, nightly)
        elif held.run.kind is RunKind.RECOMPRESS:
            recompressing.recompress(held, self.loaded, self.open_db, self.config)
        elif held.run.kind is RunKind.RECOMPRESS_PART:
            recompressing.recompress_part(held, self.loaded, self.open_db)
        else:
            compressing.compress(held, self.loaded, self.open_db)

    def _due(self) -> UUID | None:
        wanted = select(Run.id).where(Run.kind.in_(KINDS), Run.status == RunStatus.QUEUED)
        with self.open_db() as db:
            return db.scalar(wanted.order_by(Run.kind.desc(), Run.created_at).limit(1))

    def _somebody_waits(self) -> bool:
        wanted = select(Run.id).where(Run.kind.in_(KINDS), Run.status.in_(ACTIVE))
        with self.open_db() as db:
            return db.scalar(wanted.limit(1)) is not None


@contextmanager
def worker(home: Path, *, hidden: int, layers: int) -> Iterator[Worker]:
    """Servers, a random model, an empty collection; gone at the end."""
    with (
        embedded.postgres(home / "servers") as database,
        embedded.valkey(home / "servers") as broker,
        ThreadPoolExecutor(2) as pool,
        _engines() as (engine, loader),
    ):
        migrate(database)
        config = Settings(
            home=home,
            database_url=database,
            redis_url=broker,
            nightly="0 2 * * *",
            audit_passages=0,
        )
        configure(app, config)
        made = connect(database)
        yield _built(home, config, open_db(made), engine, loader, pool, hidden, layers)
        made.dispose()


@contextmanager
def _engines() -> Iterator[tuple[Engine, Engine]]:
    engine, loader = Engine(), Engine(name="loader")
    yield engine, loader
    loader.close(drain=False)
    engine.close(drain=False)


def _built(
    home: Path,
    config: Settings,
    db: OpenDb,
    engine: Engine,
    loader: Engine,
    pool: ThreadPoolExecutor,
    hidden: int,
    layers: int,
) -> Worker:
    base = tiny_base(home / "base", hidden=hidden, layers=layers)
    weights = untrained(base, compr_rate=RATE, doc_max_length=DOC_MAX_LENGTH)
    models = load_models(weights, base=base, device="cpu")
    encoder = SentenceEncoder(tiny_encoder(home / "encoder"))
    tokenizer = FastTokenizer.from_folder(base)

    def serve(row: Checkpoint, models: Models) -> Answering:
        return Answering(
            open_db=db,
            lexical=TantivyIndex(home / "tantivy"),
            dense=FaissIndex(db, encoder=encoder.name, dimension=encoder.dimension),
            latents=PostgresLatents(db),
            encoder=EncoderOnEngine(encoder, engine),
            tokenizer=tokenizer,
            models=models,
            engine=engine,
            pool=pool,
            checkpoint_id=row.id,
            limits=Limits(25, 12, 50, min_score=-1.0, max_question_tokens=200),
        )

    with db.begin() as session:
        row = make_checkpoint(
            session,
            fingerprint=models.fingerprint,
            weights_hash=models.weights_hash,
            config=models.checkpoint.config.numbers(),
            trained=False,
        )
        collection = create_collection(session, COLLECTION)
        generations.ensure(session, collection.id, row)
        ids = collection.id, row.id
    loaded = Loaded(
        db,
        engine=engine,
        loader=loader,
        find=lambda _: lambda: models,
        serve=serve,
        default=lambda session: session.get_one(Checkpoint, ids[1]),
        bound=1,
    )
    nights.look_at_schedule(db, config, now=FIRST_TICK)  # notes the tick before
    return Worker(config, db, *ids, models, loaded, tokenizer)
