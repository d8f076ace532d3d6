"""A recompression that makes the lexical index anew, through every death on its way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from clara.db.tables import Passage, Run, RunKind, RunStatus
from clara.pipeline import rebuild
from clara.pipeline.index import Indexing
from clara.pipeline.rebuild import Words, words
from clara.retrieval.cluster import Cluster
from clara.retrieval.elasticsearch import ElasticsearchIndex
from clara.retrieval.ports import LexicalIndex
from tests.clara.pipeline.conftest import cluster_at
from tests.clara.retrieval.conftest import NO_ELASTICSEARCH, lacking
from tests.workers.recompression.conftest import World, documents, dying
from workers import purging, runs
from workers.ingesting import purge
from workers.purging import give_up_builds
from workers.recompression import rebuilding


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    url = os.environ.get("CLARA_ELASTICSEARCH_URL", "")
    if not url:
        lacking(NO_ELASTICSEARCH)
    cluster = cluster_at(url, timeout_s=60)
    yield cluster
    cluster.close()


@pytest.fixture(params=["tantivy", "elasticsearch"])
def indexing(request: pytest.FixtureRequest, indexing: Indexing) -> Iterator[Indexing]:
    """On each lexical index in turn."""
    if request.param == "tantivy":
        yield indexing
        return
    lexical = ElasticsearchIndex(request.getfixturevalue("cluster"))
    yield replace(indexing, lexical=lexical)
    lexical._indices.drop_all(f"{lexical._cluster.prefix}-*")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pages, and strays that are due at once."""
    monkeypatch.setattr(rebuild, "PAGE", 3)
    monkeypatch.setattr(purging, "STRAY_AFTER_S", 0.0)


def lexical(world: World) -> LexicalIndex:
    return world.indexing.lexical


def found(world: World) -> set[UUID]:
    hits = lexical(world).search(world.collection, "harbour", limit=99)
    return {hit.passage_id for hit in hits}


def recorded(world: World) -> set[UUID]:
    with world.db() as session:
        return set(session.scalars(select(Passage.id)))


def said(world: World) -> Words | None:
    with world.db() as session:
        return words(session, world.collection)


def tidy_up(world: World) -> int:
    """Work off purge runs, as a worker of the ingest queue does. Returns how many there were."""
    with world.db() as session:
        waiting = select(Run.id).where(Run.kind == RunKind.PURGE, Run.status == RunStatus.QUEUED)
        due = list(session.scalars(waiting))
    for run_id in due:
        held = runs.take(world.db, run_id, lease_s=60)
        assert held
        runs.begin(world.db, held)
        purge(held, world.indexing)
    return len(due)


def test_a_new_index_takes_over_and_the_old_one_is_deleted(world: World) -> None:
    run = world.work(world.queue(world.old, rebuild_indexes=True))
    assert run.result
    assert (run.result["outcome"], run.result["done"], run.result["indexed"]) == ("nothing", 0, 12)
    assert said(world) == Words(2, None)
    assert lexical(world).generations(world.collection) == {1: False, 2: True}
    assert found(world) == recorded(world)
    assert tidy_up(world) == 1
    assert lexical(world).generations(world.collection) == {2: True}
    assert found(world) == recorded(world)


def test_it_takes_over_together_with_the_new_generation(
    world: World, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    active: list[UUID] = []
    kind: Any = type(lexical(world))
    switch = kind.switch

    def watched(self: Any, collection: UUID, generation: int) -> None:
        active.append(world.active())  # as others see it
        switch(self, collection, generation)

    monkeypatch.setattr(kind, "switch", watched)
    run = world.work(world.queue(world.new, rebuild_indexes=True))
    assert run.result
    assert (run.result["outcome"], run.result["indexed"]) == ("switched", 12)
    assert active == [world.old]
    assert world.active() == world.new
    assert lexical(world).generations(world.collection) == {1: False, 2: True}


@pytest.mark.parametrize("seed", range(4))
def test_whatever_commit_a_worker_dies_at_one_whole_index_serves_and_none_is_left_over(
    world: World, small_pages: None, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    if seed % 2:  # a page to a visit
        looks = count()
        monkeypatch.setattr(rebuild, "monotonic", lambda: float(next(looks)))
        monkeypatch.setattr(rebuilding, "VISIT_S", 2.0)
    run_id = world.queue(world.new if seed < 2 else world.old, rebuild_indexes=True)
    world.dies = dying(seed, share=0.2)
    written = 50
    while world.run(run_id).status not in (RunStatus.SUCCEEDED, RunStatus.FAILED):
        world.step()
        assert found(world) == recorded(world)
        if written < 60:
            world.write(documents(1, first=written))
            written += 1
            assert found(world) == recorded(world)
    assert world.deaths > 0
    assert world.run(run_id).status is RunStatus.SUCCEEDED, world.run(run_id).error
    now = said(world)
    assert now
    assert now.building is None
    tidy_up(world)
    assert lexical(world).generations(world.collection) == {now.number: True}
    assert found(world) == recorded(world)


def test_one_that_is_cancelled_leaves_the_old_index_and_no_other(world: World) -> None:
    world.config = world.config.model_copy(update={"gate_passages": 0})
    run_id = world.queue(world.old, rebuild_indexes=True)
    world.dies = lambda: said(world) == Words(2, 2)
    world.step()
    assert world.deaths == 1
    world.dies = lambda: False
    assert give_up_builds(world.db) == 0, "somebody goes on with it"
    with world.db.begin() as session:
        assert runs.cancel(session, run_id)
    world.write(documents(1, first=70))
    assert give_up_builds(world.db) == 1
    assert give_up_builds(world.db) == 0
    assert said(world) == Words(2, None)
    assert tidy_up(world) == 1
    assert lexical(world).generations(world.collection) == {1: True}
    assert found(world) == recorded(world)


def test_one_that_is_cancelled_between_the_index_and_the_commit_keeps_the_new_one(
    world: World,
) -> None:
    run_id = world.queue(world.old, rebuild_indexes=True)
    world.dies = lambda: lexical(world).generations(world.collection).get(2, False)
    world.step()
    assert world.deaths == 1
    world.dies = lambda: False
    assert said(world) == Words(2, 2)
    world.write(documents(1, first=70))
    with world.db.begin() as session:
        assert runs.cancel(session, run_id)
    assert give_up_builds(world.db) == 1
    world.write(documents(1, first=71))
    tidy_up(world)
    assert lexical(world).generations(world.collection) == {2: True}
    assert found(world) == recorded(world)


def test_an_index_that_somebody_deletes_while_it_is_built_is_built_again(world: World) -> None:
    run_id = world.queue(world.old, rebuild_indexes=True)
    world.dies = lambda: lexical(world).count(world.collection, generation=2) >= 6
    world.step()
    assert world.deaths == 1
    world.dies = lambda: False
    lexical(world).drop_generation(world.collection, 2)
    run = world.work(run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert found(world) == recorded(world)


def test_an_index_that_is_damaged_gives_way_to_a_sound_one(world: World) -> None:
    lost = sorted(recorded(world))[:5]
    lexical(world).delete(world.collection, lost)
    assert found(world) == recorded(world) - set(lost)
    world.work(world.queue(world.old, rebuild_indexes=True))
    assert found(world) == recorded(world)


def test_one_that_always_holds_less_fails_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = type(lexical(world))
    monkeypatch.setattr(kind, "count", lambda *_, **__: 3)
    run = world.work(world.queue(world.old, rebuild_indexes=True))
    assert run.error
    assert (run.status, run.error["code"]) == (RunStatus.FAILED, "index-mismatch")
    assert "holds less than the record" in run.error["message"]
    assert give_up_builds(world.db) == 1
    tidy_up(world)
    assert lexical(world).generations(world.collection) == {1: True}
