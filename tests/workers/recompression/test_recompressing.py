"""A recompression from the plan to the switch, and through every death on its way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, select, update

from clara import generations
from clara.db.tables import (
    Checkpoint,
    Collection,
    Document,
    DocumentStatus,
    Generation,
    Latent,
    Passage,
    Run,
    RunKind,
    RunStatus,
)
from clara.model.models import Models
from clara.serving.engine import Engine
from clara.types import SourceDocument
from tests.factories import make_checkpoint
from tests.workers.recompression.conftest import World, documents, dying, with_limits
from workers import runs
from workers.enqueue import transaction
from workers.loaded import Loaded
from workers.recompression import recompressing as module
from workers.recompression.queueing import queue_recompress


def test_another_compressor_takes_over_once_all_its_latents_are_there(world: World) -> None:
    run = world.work(world.queue(world.new))
    assert run.status is RunStatus.SUCCEEDED
    assert run.result
    assert (run.result["outcome"], run.result["done"], run.result["remains"]) == ("switched", 12, 0)
    assert run.result["stale"]["fingerprint"] == 12
    assert world.active() == world.new
    assert world.latents(world.new) == world.latents(world.old) == world.passages() == 12
    assert world.generations() == [(1, "kept", world.old), (2, "active", world.new)]
    assert world.statuses() == {DocumentStatus.INDEXED}


def test_many_passages_are_made_in_parts_and_the_last_part_wakes_the_run(
    world: World, small_pages: None
) -> None:
    run_id = world.queue(world.new)
    world.step()
    waiting = world.run(run_id)
    assert (waiting.status, waiting.lease) == (RunStatus.RUNNING, None)
    assert [part.total for part in world.parts()] == [3, 3, 3, 3]
    world.step()
    assert world.run(run_id).done == 3
    run = world.work(run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert (run.done, run.total) == (12, 12)
    assert world.latents(world.new) == 12
    assert sum(part.result["latents"] for part in world.parts() if part.result) == 12


@pytest.mark.parametrize("seed", range(6))
def test_whatever_commit_a_worker_dies_at_the_end_is_the_same(
    world: World, small_pages: None, seed: int
) -> None:
    world.alter(update(Latent).values(checksum=1).where(Latent.passage_id == _some(world)))
    run_id = world.queue(world.new, gate=seed % 2 == 0)
    world.dies = dying(seed)
    run = world.work(run_id)
    assert world.deaths > 2
    assert run.status is RunStatus.SUCCEEDED, run.error
    assert world.active() == world.new
    assert world.latents(world.new) == 12
    assert world.generations() == [(1, "kept", world.old), (2, "active", world.new)]
    assert world.statuses() == {DocumentStatus.INDEXED}


@pytest.mark.parametrize("seed", range(3))
def test_a_death_while_damage_is_repaired_leaves_no_block_damaged(
    world: World, small_pages: None, seed: int
) -> None:
    world.alter(update(Latent).values(checksum=1))
    world.dies = dying(seed)
    run = world.work(world.queue(world.old))
    assert run.result
    assert (run.result["outcome"], run.result["stale"]["damaged"]) == ("repaired", 12)
    world.dies = lambda: False
    again = world.work(world.queue(world.old))
    assert again.result
    assert again.result["outcome"] == "nothing"
    assert world.generations() == [(1, "active", world.old)]


def test_the_same_fingerprint_takes_over_at_once_with_nothing_made(world: World) -> None:
    with world.db.begin() as session:
        twin = make_checkpoint(session, fingerprint=world.fingerprint(world.old)).id
    run = world.work(world.queue(twin, gate=True))
    assert run.result
    assert (run.result["outcome"], run.result["done"]) == ("followed", 0)
    assert world.visits == 1
    assert world.active() == twin
    assert world.generations() == [(1, "kept", world.old), (2, "active", twin)]


def test_what_is_lacking_of_the_active_fingerprint_is_made_in_place(world: World) -> None:
    world.alter(delete(Latent).where(Latent.passage_id == _some(world)))
    world.alter(update(Document).values(status=DocumentStatus.SEARCHABLE))
    run = world.work(world.queue(world.old))
    assert run.result
    assert (run.result["outcome"], run.result["stale"]["missing"]) == ("repaired", 1)
    assert world.latents(world.old) == 12
    assert world.statuses() == {DocumentStatus.INDEXED}
    assert world.generations() == [(1, "active", world.old)]


def test_what_is_written_while_it_switches_is_left_to_the_compress_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts before it locks, so that nobody waits for the count."""
    count = module.count_left

    def count_then_write(*given: Any) -> int:
        found = count(*given)
        world.write(documents(1, first=60))
        world.compress(world.old)
        return found

    monkeypatch.setattr(module, "count_left", count_then_write)
    assert world.work(world.queue(world.new)).status is RunStatus.SUCCEEDED
    assert world.active() == world.new
    assert world.statuses() == {DocumentStatus.INDEXED, DocumentStatus.SEARCHABLE}
    with world.db() as session:
        waits = select(Run.collection_id).where(Run.kind == RunKind.COMPRESS)
        assert session.scalars(waits).all() == [world.collection]
    world.compress(world.new)
    assert world.statuses() == {DocumentStatus.INDEXED}


def test_an_empty_collection_switches_at_once(world: World) -> None:
    world.alter(delete(Document))
    run = world.work(world.queue(world.new, gate=True))
    assert (run.status, world.visits) == (RunStatus.SUCCEEDED, 1)
    assert world.active() == world.new


def test_what_is_written_and_deleted_meanwhile_is_neither_lost_nor_kept(
    world: World, small_pages: None
) -> None:
    run_id = world.queue(world.new)
    world.step()
    world.step()
    gone = _some(world)
    world.alter(delete(Passage).where(Passage.id == gone))
    world.write(documents(3, first=50))
    world.write([SourceDocument("Another harbour altogether, of 1999.", external_id="harbour-2")])
    run = world.work(run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert world.latents(world.new) == world.passages() >= 14
    assert world.active() == world.new


def test_a_cancelled_one_stops_its_parts_and_the_next_one_goes_on(
    world: World, small_pages: None
) -> None:
    run_id = world.queue(world.new)
    world.step()
    world.step()
    with world.db.begin() as session:
        assert runs.cancel(session, run_id)
    states = {part.status for part in world.parts()}
    assert states == {RunStatus.SUCCEEDED, RunStatus.CANCELLED}
    assert world.latents(world.new) == 3
    assert world.active() == world.old
    run = world.work(world.queue(world.new))
    assert run.result
    assert (run.result["generation"], run.result["done"]) == (2, 9)
    assert world.active() == world.new


def test_a_promotion_ends_the_one_for_another_checkpoint_and_gives_up_what_it_built(
    world: World, small_pages: None
) -> None:
    with world.db.begin() as session:
        twin = make_checkpoint(session, fingerprint=world.fingerprint(world.old)).id
    first = world.queue(world.new)
    world.step()
    assert world.generations()[-1] == (2, "building", world.new)
    second = world.queue(twin, reason="promotion")
    assert world.run(first).status is RunStatus.CANCELLED
    assert world.work(second).status is RunStatus.SUCCEEDED
    assert world.active() == twin
    assert [row[1] for row in world.generations()] == ["kept", "dropped", "active"]
    assert world.latents(world.new) == 0


def test_one_that_was_asked_for_is_not_ended_by_another_request(world: World) -> None:
    first = world.queue(world.new)
    for reason, checkpoint in (
        ("asked", world.old),
        ("night", world.old),
        ("promotion", world.new),
    ):
        with transaction(world.db) as (session, send):
            again = queue_recompress(
                session,
                send,
                world.collection,
                checkpoint_id=checkpoint,
                reason=reason,
                gate=True,
            )
        assert again is None
    assert world.run(first).status is RunStatus.QUEUED


def test_a_collection_that_is_deleted_ends_it_by_name(world: World, small_pages: None) -> None:
    run_id = world.queue(world.new)
    world.step()
    world.step()
    world.alter(delete(Collection))
    for _ in range(8):
        world.step()
    run = world.run(run_id)
    assert run.status is RunStatus.CANCELLED
    assert run.error
    assert "the collection was deleted" in run.error["message"]


def test_a_part_that_fails_fails_it_by_name_and_a_retry_goes_on(
    world: World, small_pages: None
) -> None:
    run_id = world.queue(world.new)
    world.step()
    part = world.parts()[0].id
    world.alter(
        update(Run)
        .where(Run.id == part)
        .values(status=RunStatus.FAILED, error={"message": "out of memory", "retryable": False})
    )
    run = world.work(run_id)
    assert run.error
    assert (run.status, run.error["code"]) == (RunStatus.FAILED, "recompression-failed")
    assert str(part) in run.error["message"]
    assert "out of memory" in run.error["message"]
    assert world.active() == world.old
    world.alter(update(Run).where(Run.id == run_id).values(status=RunStatus.QUEUED, error=None))
    assert world.work(run_id).status is RunStatus.SUCCEEDED
    assert world.latents(world.new) == 12


def test_passages_the_compressor_cannot_read_stay_text_and_are_counted(
    world: World, small_pages: None
) -> None:
    long = "Copper and glass " * 40
    some = select(Passage.id).order_by(Passage.id).limit(5)
    world.alter(update(Passage).where(Passage.id.in_(some)).values(text=long, tokens=200))
    run = world.work(world.queue(world.new))
    assert run.result
    assert (run.result["outcome"], run.result["done"], run.result["skipped"]) == ("switched", 7, 5)
    assert run.details["plan"]["too_long"] == 5
    assert world.latents(world.new) == 7
    assert world.statuses() == {DocumentStatus.INDEXED, DocumentStatus.SEARCHABLE}


def test_at_its_deadline_it_pauses_and_another_one_goes_on(world: World, small_pages: None) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    run_id = world.queue(world.new, reason="night", deadline=soon)
    world.step()
    world.step()
    over = {"deadline": (soon - timedelta(hours=2)).isoformat()}
    world.alter(update(Run).values(inputs=Run.inputs.op("||")(over)))
    run = world.work(run_id)
    assert run.result
    assert (run.status, run.result["outcome"]) == (RunStatus.SUCCEEDED, "paused")
    assert (run.result["done"], run.result["remains"]) == (3, 9)
    assert world.active() == world.old
    next_night = world.work(world.queue(world.new, reason="night"))
    assert next_night.result
    assert (next_night.result["done"], next_night.result["remains"]) == (9, 0)
    assert world.active() == world.new


def test_a_generation_that_finds_less_is_refused_with_the_numbers(world: World) -> None:
    _new_one_finds_nothing(world)
    run = world.work(world.queue(world.new, gate=True))
    assert run.error
    assert (run.status, run.error["code"]) == (RunStatus.FAILED, "generation-refused")
    assert "Recall@5 of 4 passages fell from 1.000 to 0.000 (margin 0)" in run.error["message"]
    assert world.active() == world.old
    assert world.generations()[-1][1] == "dropped"
    with world.db() as session:
        gate = session.scalars(select(Generation.gate).where(Generation.number == 2)).one()
    assert gate
    assert gate["recall@5"] == {"active": 1.0, "new": 0.0, "of": 4, "margin": 0.0}
    assert world.latents(world.new) == 4, "kept for who overrules the gate"


def test_after_a_refusal_nights_keep_what_answers_whole_and_forget_the_rest(world: World) -> None:
    _new_one_finds_nothing(world)
    world.work(world.queue(world.new, gate=True))
    night = world.work(world.queue(world.new, reason="night", gate=True))
    assert night.result
    assert (night.status, night.result["outcome"]) == (RunStatus.SUCCEEDED, "nothing")
    assert night.result["forgotten"] == 4
    assert world.active() == world.old
    assert (world.latents(world.old), world.latents(world.new)) == (4, 0)


def test_a_retry_of_a_refused_one_plans_anew_and_makes_nothing_twice(world: World) -> None:
    _new_one_finds_nothing(world)
    run_id = world.queue(world.new, gate=True)
    world.work(run_id)
    world.config = world.config.model_copy(update={"recall_margin": 1.0})
    world.alter(update(Run).where(Run.id == run_id).values(status=RunStatus.QUEUED, error=None))
    run = world.work(run_id)
    assert run.result
    assert (run.result["outcome"], run.result["generation"]) == ("switched", 3)
    assert run.details["plan"]["to_make"] == 0
    assert world.active() == world.new


def test_without_the_gate_it_switches_whatever_it_finds(world: World) -> None:
    _new_one_finds_nothing(world)
    assert world.work(world.queue(world.new, gate=False)).status is RunStatus.SUCCEEDED
    assert world.active() == world.new


def test_latents_older_than_the_ones_kept_are_forgotten(world: World) -> None:
    world.config = world.config.model_copy(update={"generations_kept": 1})
    run = world.work(world.queue(world.new))
    assert run.result
    assert run.result["forgotten"] == 12
    assert (world.latents(world.old), world.latents(world.new)) == (0, 12)
    assert world.generations() == [(1, "dropped", world.old), (2, "active", world.new)]


def test_going_back_needs_no_model_and_coming_again_makes_nothing(world: World) -> None:
    world.work(world.queue(world.new))
    with world.db.begin() as session:
        generations.roll_back(session, world.collection, keep=2)
    assert world.active() == world.old
    run = world.work(world.queue(world.new))
    assert run.result
    assert (run.result["outcome"], run.result["done"]) == ("switched", 0)
    assert world.active() == world.new


def test_of_two_that_ask_at_once_one_gets_it(world: World) -> None:
    def ask(_: int) -> bool:
        with transaction(world.db) as (session, _send):
            run = queue_recompress(
                session,
                lambda *_: None,
                world.collection,
                checkpoint_id=world.new,
                reason="asked",
                gate=True,
            )
        return run is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1


def test_it_works_with_the_checkpoints_a_worker_loads(
    world: World, models: dict[str, Models], model_engine: Engine, small_pages: None
) -> None:
    loader = Engine()
    read: list[str] = []

    def find(row: Checkpoint) -> Callable[[], Models]:
        read.append(row.name)
        return lambda: models[row.name]

    shelf = world.shelf
    world.shelf = Loaded(  # type: ignore[assignment]
        world.db,
        engine=model_engine,
        loader=loader,
        find=find,
        serve=lambda row, _: shelf.held[row.id],
        default=lambda session: session.get_one(Checkpoint, world.old),
        bound=2,
    )
    assert world.work(world.queue(world.new, gate=True)).status is RunStatus.SUCCEEDED
    assert world.active() == world.new
    assert sorted(read) == ["new", "old"]
    loader.close(drain=False)


def test_a_compress_run_at_work_is_not_doubled(world: World) -> None:
    world.alter(delete(Latent).where(Latent.passage_id == _some(world)))
    with world.db.begin() as session:
        session.add(Run(kind=RunKind.COMPRESS, collection_id=world.collection))
    run_id = world.queue(world.old)
    world.step()
    assert world.run(run_id).status is RunStatus.QUEUED
    assert world.latents(world.old) == 11


def _some(world: World) -> UUID:
    with world.db() as session:
        return session.scalars(select(Passage.id).order_by(Passage.id)).all()[5]


def _new_one_finds_nothing(world: World) -> None:
    """Of four passages the active generation reads all five a question may have."""
    few = [f"harbour-{n}" for n in range(4)]
    world.alter(delete(Document).where(Document.external_id.not_in(few)))
    with_limits(world, world.new, min_score=2.0)
    world.config = world.config.model_copy(update={"recall_margin": 0.0})
