"""The same message delivered five times at once has the effect of one; a cancelled run stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select

from clara.db.connect import OpenDb
from clara.db.tables import (
    Answer,
    Candidate,
    Checkpoint,
    Citation,
    Collection,
    DocumentStatus,
    Latent,
    Passage,
    Run,
    RunKind,
    RunStatus,
)
from clara.documents import find_collection, write_documents
from clara.serving.engine import Engine
from tests.factories import make_question
from tests.workers.recompression.conftest import World, documents
from tests.workers.test_runs import queued, stored
from workers import bootstrap, enqueue, runs, tasks
from workers.app import app
from workers.loaded import Loaded

COPIES = 5

Deliver = Callable[..., None]


@pytest.fixture
def loaded(world: World) -> Iterator[Loaded]:
    loader = Engine()

    def default(_: object) -> Checkpoint:
        raise AssertionError("the collection has a generation")

    yield Loaded(
        world.db,
        engine=world.shelf.get(world.old).engine,
        loader=loader,
        find=lambda row: lambda: world.shelf.get(row.id).models,
        serve=lambda row, _: world.shelf.get(row.id),
        default=default,
        bound=2,
    )
    loader.close()


@pytest.fixture
def deliver(world: World, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> Deliver:
    """Calls the tasks as a worker's threads do."""
    app.finalize()
    monkeypatch.setattr(bootstrap, "database", lambda: world.db)
    monkeypatch.setattr(bootstrap, "loaded", lambda: loaded)
    every = SimpleNamespace(of=lambda _: world.indexing)
    monkeypatch.setattr(bootstrap, "indexings", lambda: every)
    monkeypatch.setattr(tasks, "settings", lambda: world.config)
    for module in (tasks, enqueue):
        monkeypatch.setattr(module, "send", lambda *_: True)

    def run(task: Callable[[str], None], run_id: UUID, copies: int = COPIES) -> None:
        together = Barrier(copies)

        def one(_: int) -> None:
            together.wait()
            task(str(run_id))

        with ThreadPoolExecutor(copies) as pool:
            list(pool.map(one, range(copies)))

    return run


def count(db: OpenDb, table: type) -> int:
    with db() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def asked(world: World, **values: object) -> UUID:
    """A question with its run."""
    with world.db.begin() as session:
        shop = session.get_one(Collection, world.collection)
        question = make_question(
            session,
            shop,
            text="When was the harbour of Cadiz built?",
            max_answer_tokens=3,
            **values,
        )
        run = session.get_one(Run, question.run_id)
        run.inputs, run.total = {"question_id": str(question.id)}, 1
        return run.id


def ended_at_once(db: OpenDb, run_id: UUID) -> None:
    row = stored(db, run_id)
    assert (row.status, row.attempts, row.lease) == (RunStatus.SUCCEEDED, 1, None), row.error


def test_a_question_is_answered_once(world: World, deliver: Deliver) -> None:
    run_id = asked(world, top_k=3)
    for _ in range(2):
        deliver(tasks.answer_question, run_id)
        ended_at_once(world.db, run_id)
        assert (count(world.db, Answer), count(world.db, Citation)) == (1, 3)


def test_a_search_keeps_its_candidates_once(world: World, deliver: Deliver) -> None:
    run_id = asked(world, search_only=True, explain=True)
    deliver(tasks.answer_question, run_id)
    ended_at_once(world.db, run_id)
    found = count(world.db, Candidate)
    deliver(tasks.answer_question, run_id)
    assert count(world.db, Candidate) == found > 0


def test_documents_are_indexed_once(world: World, deliver: Deliver) -> None:
    before = count(world.db, Passage)
    with world.db.begin() as session:
        shop = find_collection(session, "shop")
        written = write_documents(session, shop, documents(4, first=100))
    inputs = {"documents": [str(one.id) for one in written]}
    run_id = queued(world.db, kind=RunKind.INGEST, collection_id=world.collection, inputs=inputs)
    deliver(tasks.ingest_documents, run_id)
    ended_at_once(world.db, run_id)
    assert count(world.db, Passage) == before + 4
    with world.db() as session:
        record = set(session.scalars(select(Passage.id)))
        compresses = session.scalars(select(Run).where(Run.kind == RunKind.COMPRESS)).all()
    assert world.indexing.lexical.held(world.collection) == record
    assert world.indexing.dense.held(world.collection) == record
    assert len(compresses) == 1


def test_latents_are_made_once(world: World, deliver: Deliver) -> None:
    world.alter(delete(Latent))
    run_id = queued(world.db, kind=RunKind.COMPRESS, collection_id=world.collection)
    deliver(tasks.compress_collection, run_id)
    ended_at_once(world.db, run_id)
    assert world.latents(world.old) == count(world.db, Latent) == world.passages()


def test_a_collection_is_recompressed_once(
    world: World, deliver: Deliver, small_pages: None
) -> None:
    """Every message of the whole and of its parts comes five times."""
    whole = world.queue(world.new)
    for _ in range(50):
        if stored(world.db, whole).status is RunStatus.SUCCEEDED:
            break
        deliver(tasks.recompress_collection, whole)
        for part in world.parts():
            deliver(tasks.recompress_range, part.id)
    assert stored(world.db, whole).status is RunStatus.SUCCEEDED
    assert world.latents(world.new) == world.passages()
    assert world.generations() == [(1, "kept", world.old), (2, "active", world.new)]
    assert world.statuses() == {DocumentStatus.INDEXED}


@pytest.fixture
def polls(world: World, monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Cancels a run at its second look at whether to stop, and lets it go on once it knows."""
    seen: list[UUID] = []

    def stopped(held: runs.Held) -> bool:
        seen.append(held.run.id)
        if len(seen) == 2:
            with world.db.begin() as session:
                assert runs.cancel(session, held.run.id)
            assert held.lost.wait(10 * runs.POLL_S), "not noticed"
        return held.lost.is_set()

    monkeypatch.setattr(runs.Held, "stopped", stopped)
    return seen


def test_a_question_that_is_cancelled_stops_at_the_next_token(
    world: World, deliver: Deliver, polls: list[UUID]
) -> None:
    run_id = asked(world)
    deliver(tasks.answer_question, run_id, copies=1)
    assert stored(world.db, run_id).status is RunStatus.CANCELLED
    assert polls == [run_id] * 2
    assert count(world.db, Answer) == 0


def test_a_compression_that_is_cancelled_stops_at_the_next_batch(
    world: World, deliver: Deliver, polls: list[UUID]
) -> None:
    world.alter(delete(Latent))
    run_id = queued(world.db, kind=RunKind.COMPRESS, collection_id=world.collection)
    deliver(tasks.compress_collection, run_id, copies=1)
    assert stored(world.db, run_id).status is RunStatus.CANCELLED
    assert polls == [run_id] * 2
    assert count(world.db, Latent) < world.passages()
