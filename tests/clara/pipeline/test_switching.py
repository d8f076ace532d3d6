"""Questions while generations change under them, in one process with two checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import delete, select

from clara import generations, registry
from clara.db.connect import OpenDb
from clara.db.tables import Answer, Checkpoint, Generation, Latent, Question, Run, RunKind
from clara.errors import CheckpointMismatch, LatentsNotReady
from clara.model.checkpoint import load
from clara.model.models import Models, load_models
from clara.pipeline.asking import Answering
from clara.pipeline.compress import compress_collection
from clara.pipeline.index import Indexing
from clara.registry import Inspected
from clara.serving.engine import Engine
from clara.types import Mode, SourceDocument
from tests.clara.pipeline.conftest import DOC_MAX_LENGTH, Ask, Write, index
from tests.tiny import tiny_checkpoint
from tests.workers.test_runs import begun, queued
from workers.answering import answer
from workers.loaded import Loaded

DOCUMENTS = [
    SourceDocument("Tea came from Canton.", external_id="tea"),
    SourceDocument("Bees dance on the comb.", external_id="bees"),
]


@pytest.fixture(scope="module")
def other_models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Another checkpoint, with latents of its own."""
    folder = tmp_path_factory.mktemp("other") / "tiny"
    tiny_checkpoint(folder, base, rate=8, doc_max_length=DOC_MAX_LENGTH)
    return load_models(load(folder), device="cpu")


@pytest.fixture
def loader() -> Iterator[Engine]:
    engine = Engine(name="loader")
    yield engine
    engine.close(drain=False)


@pytest.fixture
def checkpoints(db: OpenDb, models: Models, other_models: Models) -> list[UUID]:
    """Rows of both."""
    ids = []
    with db.begin() as session:
        for at, one in enumerate((models, other_models)):
            found = Inspected(
                *(f"tiny {at}", one.fingerprint, one.weights_hash, "/base", True, {}, f"/{at}")
            )
            ids.append(registry.register(session, found))
    return ids


@pytest.fixture
def loaded(
    db: OpenDb,
    answering: Answering,
    models: Models,
    other_models: Models,
    checkpoints: list[UUID],
    loader: Engine,
) -> Loaded:
    """Both are a moment away; the first is the default."""
    by_id = dict(zip(checkpoints, (models, other_models), strict=True))
    return Loaded(
        db,
        engine=answering.engine,
        loader=loader,
        find=lambda row: lambda: by_id[row.id],
        serve=lambda row, found: replace(answering, models=found, checkpoint_id=row.id),
        default=lambda session: session.get_one(Checkpoint, checkpoints[0]),
        bound=2,
    )


Asking = Callable[[str], Answer]


@pytest.fixture
def asking(db: OpenDb, loaded: Loaded, ask: Ask) -> Asking:
    """Asks in latent mode, as a worker answers; the row that is left."""

    def run(text: str) -> Answer:
        asked = ask(text, mode=Mode.LATENT)
        run_id = queued(
            db, collection_id=asked.collection_id, inputs={"question_id": str(asked.id)}
        )
        with db.begin() as session:
            session.add(
                Question(
                    id=asked.id,
                    collection_id=asked.collection_id,
                    run_id=run_id,
                    text=text,
                    mode=asked.mode,
                    top_k=2,
                    max_answer_tokens=2,
                )
            )
        answer(begun(db, run_id), loaded, db)
        with db() as session:
            return session.get_one(Answer, asked.id)

    return run


@pytest.fixture
def two(
    db: OpenDb,
    write: Write,
    indexing: Indexing,
    collection: UUID,
    loaded: Loaded,
    checkpoints: list[UUID],
) -> list[UUID]:
    """Generations of both checkpoints with all their latents; the first one is active."""
    index(write(*DOCUMENTS), indexing)
    known = [loaded.generation(collection)]
    with db.begin() as session:
        row = session.get_one(Checkpoint, checkpoints[1])
        known.append(generations.build(session, collection, row, None))
    for one in known:
        compress(loaded, collection, one.checkpoint_id)
    return [one.id for one in known]


def compress(loaded: Loaded, collection: UUID, checkpoint: UUID) -> None:
    compress_collection(
        collection,
        loaded.compressing(checkpoint),
        budget_s=60,
        on_batch=lambda _: None,
        stopped=lambda: False,
    )


def switch(db: OpenDb, generation: UUID, *, keep: int = 2) -> None:
    with db.begin() as session:
        generations.switch(session, generation, keep=keep)


def test_a_switch_and_a_way_back_under_load_fail_no_question_and_mix_nothing(
    db: OpenDb, two: list[UUID], collection: UUID, asking: Asking, checkpoints: list[UUID]
) -> None:
    done = Event()
    answers: list[Answer] = []

    def go_on(text: str) -> None:
        while not done.is_set():
            answers.append(asking(text))

    with ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(go_on, text) for text in ("Who came?", "Who dances?")]
        try:
            for target in (two[1], two[0], two[1]):
                seen = len(answers)
                switch(db, target)
                while len(answers) < seen + 4 and not any(one.done() for one in under_way):
                    done.wait(0.01)
            with db.begin() as session:
                generations.roll_back(session, collection, keep=2)
        finally:
            done.set()
        for one in under_way:
            one.result()
    pairs = {(answer.generation_id, answer.checkpoint_id) for answer in answers}
    assert pairs == set(zip(two, checkpoints, strict=True))
    assert {answer.reranked_by for answer in answers} == {"latent"}
    assert asking("Who came?").generation_id == two[0]


def test_a_question_whose_latents_are_forgotten_meanwhile_is_answered_by_the_next_generation(
    db: OpenDb,
    two: list[UUID],
    asking: Asking,
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was pinned to the old one when that was dropped, at once and with all its latents."""
    serving = loaded.serving

    def overtaken(collection: UUID) -> object:
        chosen = serving(collection)
        switch(db, two[1], keep=1)
        with db.begin() as session:
            (fingerprint,) = generations.unneeded(session, collection)
            assert generations.forget(session, collection, fingerprint) == 2
        return chosen

    monkeypatch.setattr(loaded, "serving", overtaken)
    assert asking("Who came?").generation_id == two[1]


def test_a_latent_that_only_the_active_generation_has_is_waited_for(
    db: OpenDb,
    two: list[UUID],
    write: Write,
    indexing: Indexing,
    collection: UUID,
    asking: Asking,
    loaded: Loaded,
    checkpoints: list[UUID],
) -> None:
    """The one before still answers, and knows nothing of a document written since."""
    switch(db, two[1])
    index(write(SourceDocument("Coffee came later.")), indexing)
    compress(loaded, collection, checkpoints[1])
    del loaded._held[checkpoints[1]]
    assert asking("Who came?").generation_id == two[1]


def test_a_latent_that_no_checkpoint_can_make_yet_is_said_to_be_missing(
    db: OpenDb,
    two: list[UUID],
    asking: Asking,
    loaded: Loaded,
    checkpoints: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after an update that brought other weights: the default one answers, without latents."""
    switch(db, two[1], keep=1)
    with db.begin() as session:
        session.execute(delete(Latent))
    loaded._held.clear()
    find = loaded._find

    def gone(row: Checkpoint) -> Callable[[], Models]:
        if row.id == checkpoints[1]:
            raise CheckpointMismatch("other weights by now")
        return find(row)

    monkeypatch.setattr(loaded, "_find", gone)
    with pytest.raises(LatentsNotReady, match="have no latent yet"):
        asking("Who came?")


def test_an_answer_says_what_it_was_made_from_and_so_does_a_search(
    db: OpenDb, two: list[UUID], asking: Asking, loaded: Loaded, collection: UUID
) -> None:
    made = asking("Who came?")
    with db() as session:
        row = session.get_one(Generation, made.generation_id)
        assert (row.number, row.checkpoint_id) == (1, made.checkpoint_id)
        question = session.get_one(Question, made.question_id)
    run_id = queued(db, collection_id=collection, inputs={"question_id": str(question.id)})
    with db.begin() as session:
        session.execute(delete(Answer))
        session.get_one(Question, question.id).search_only = True
    switch(db, two[1])
    answer(begun(db, run_id), loaded, db)
    with db() as session:
        result = session.get_one(Run, run_id).result
    assert result
    assert result["generation"] == 2


def test_a_question_of_a_collection_that_is_deleted_meanwhile_is_cancelled(
    db: OpenDb, two: list[UUID], asking: Asking, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clara.errors import Cancelled, UnknownCollection

    def gone(_: UUID) -> object:
        raise UnknownCollection("it is gone")

    monkeypatch.setattr(loaded, "serving", gone)
    with pytest.raises(Cancelled, match="was deleted"):
        asking("Who came?")
    with db() as session:
        assert session.scalars(select(Run.kind)).all() == [RunKind.QUERY]
        assert len(session.scalars(select(Latent.passage_id)).all()) == 4
