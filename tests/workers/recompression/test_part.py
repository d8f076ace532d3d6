"""A part by itself: its range, its turn, its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from clara.db.tables import Latent, Passage, Run, RunKind, RunStatus
from clara.errors import Cancelled, CheckpointMismatch
from tests.workers.recompression.conftest import World
from workers import runs
from workers.recompression import part as module
from workers.recompression.part import recompress_part
from workers.recompression.queueing import wake_a_part
from workers.turns import turn


def part(world: World, first: UUID | None, before: UUID | None, **inputs: Any) -> UUID:
    """A queued part that makes latents of the new checkpoint."""
    given = {
        "first": str(first) if first else None,
        "before": str(before) if before else None,
        "wave": 1,
        "checkpoint_id": str(world.new),
        "fingerprint": world.fingerprint(world.new),
        "deadline": None,
    } | inputs
    with world.db.begin() as session:
        run = Run(kind=RunKind.RECOMPRESS_PART, collection_id=world.collection, inputs=given)
        session.add(run)
        session.flush()
        return run.id


def work(world: World, run_id: UUID) -> Run:
    held = runs.take(world.db, run_id, lease_s=60)
    assert held
    runs.begin(world.db, held)
    recompress_part(held, world.shelf, world.db)  # type: ignore[arg-type]
    return world.run(run_id)


def ids(world: World) -> list[UUID]:
    with world.db() as session:
        return list(session.scalars(select(Passage.id).order_by(Passage.id)))


def test_a_part_makes_what_its_range_lacks_and_nothing_else(world: World) -> None:
    passages = ids(world)
    run = work(world, part(world, passages[3], passages[7]))
    assert run.result
    assert (run.status, run.result["latents"]) == (RunStatus.SUCCEEDED, 4)
    assert run.result["tokens"] > 0
    assert run.result["seconds"] > 0
    with world.db() as session:
        new = Latent.fingerprint == world.fingerprint(world.new)
        made = session.scalars(select(Latent.passage_id).where(new).order_by(Latent.passage_id))
        assert list(made) == passages[3:7]
    again = work(world, part(world, passages[2], passages[7]))
    assert again.result
    assert again.result["latents"] == 1


def test_only_one_part_computes_at_a_time_and_the_next_is_woken(world: World) -> None:
    waiting = part(world, None, None)
    with turn() as ours:
        assert ours
        run = work(world, waiting)
        assert (run.status, run.attempts) == (RunStatus.QUEUED, 0)
        assert run.queued_at > datetime.now(UTC) + timedelta(seconds=5)
    passages = ids(world)
    work(world, part(world, passages[0], passages[1]))
    assert world.run(waiting).queued_at <= datetime.now(UTC)
    assert wake_a_part(world.db) is None
    assert work(world, waiting).status is RunStatus.SUCCEEDED


def test_a_worker_of_another_precision_refuses_to_make_other_latents(world: World) -> None:
    with pytest.raises(CheckpointMismatch, match="0000"):
        work(world, part(world, None, None, fingerprint="0" * 64))
    assert world.latents(world.new) == 0


def test_a_part_whose_time_is_up_ends_well_with_what_it_has(world: World) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    run = work(world, part(world, None, None, deadline=past.isoformat()))
    assert run.result
    assert (run.status, run.result["latents"]) == (RunStatus.SUCCEEDED, 0)


def test_a_cancelled_part_keeps_its_last_page_and_writes_no_more(
    world: World, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = part(world, None, None)
    held = runs.take(world.db, run_id, lease_s=60)
    assert held
    monkeypatch.setattr(module, "count_on_parent", lambda *_: held.lost.set())
    with pytest.raises(Cancelled):
        recompress_part(held, world.shelf, world.db)  # type: ignore[arg-type]
    assert world.latents(world.new) == 2


def test_a_part_is_given_back_when_the_worker_is_told_to_stop(
    world: World, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(module, "count_on_parent", lambda *_: told.append(True))
    monkeypatch.setattr(module, "stopping", lambda: bool(told))
    with pytest.raises(Cancelled):
        work(world, part(world, None, None))
    assert world.latents(world.new) == 2
