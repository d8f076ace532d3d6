"""A night from its tick to its report, and through every death on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, delete, event, select, update

from clara.db.connect import OpenDb
from clara.db.tables import (
    ACTIVE,
    Checkpoint,
    Collection,
    DocumentStatus,
    Latent,
    Night,
    Passage,
    Run,
    RunKind,
    RunStatus,
)
from clara.documents import create_collection
from clara.errors import Cancelled, ModelMissing
from clara.model.compressor import Compressor
from clara.settings import Settings
from tests.workers.recompression.conftest import Killed, World, documents, dying, with_limits
from workers import runs
from workers.app import app, configure
from workers.nights import nights

TWO = datetime(2026, 11, 23, 2, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = 1 / 3600
"""In hours."""


@dataclass
class Nights:
    """A world that has nights: its workers take messages of all three kinds."""

    world: World
    default: UUID
    """What the collections shall answer from."""
    tick: datetime = TWO
    compressed: list[tuple[int, ...]] = field(default_factory=list)
    """Token ids of the passages that were compressed, in order."""
    on_batch: Callable[[], None] = lambda: None
    """Called before each batch they make."""

    def set(self, **values: Any) -> None:
        self.world.config = self.world.config.model_copy(update=values)

    def begin(self) -> Night:
        """The next night, not worked off yet."""
        self.tick += DAY
        night = nights.look_at_schedule(self.world.db, self.world.config, now=self.tick)
        assert night
        return self.night(night)

    def night(self, night_id: UUID) -> Night:
        with self.world.db() as session:
            return session.get_one(Night, night_id)

    def entry(self, night: Night, collection: str = "shop") -> dict[str, Any]:
        """What the report of a night says of a collection."""
        report = self.night(night.id).report
        (found,) = (e for e in report["collections"].values() if e["collection"] == collection)
        return dict(found)

    def work(self, night: Night | None = None, *, visits: int = 300) -> Night:
        """Work off a night, or a new one, as workers do, however often they die."""
        night = night or self.begin()
        assert night.run_id
        for _ in range(visits):
            run = self.world.run(night.run_id)
            if run.status not in ACTIVE:
                return self.night(night.id)
            if run.status is RunStatus.QUEUED:
                self.visit(run.id)
            else:
                self.world.step()
        raise AssertionError(f"not ended after {visits} visits: {run.phase}")

    def visit(self, run_id: UUID) -> bool:
        """One visit to a night. Returns whether it is to be sent again."""
        held = runs.take(self.world.db, run_id, lease_s=60)
        assert held
        runs.begin(self.world.db, held)
        self.world.working = True
        try:
            return nights.work_off(held, self.nightly())
        except Killed:
            self.world._take_back()
            return False
        except Cancelled as gone:
            self.world.working = False
            runs.cancelled(self.world.db, held, gone)
            return False
        finally:
            self.world.working = False

    def nightly(self) -> nights.Nightly:
        return nights.Nightly(
            self.world.db,
            self.world.shelf,  # type: ignore[arg-type]
            lambda session: session.get_one(Checkpoint, self.default),
            self.world.config,
        )


@pytest.fixture
def slept(world: World, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """The world of a recompression, with nights at two."""
    configure(app, Settings(_env_file=None, redis_url=broker_url))
    found = Nights(world, default=world.old)
    found.set(nightly="0 2 * * *", audit_passages=0)
    assert nights.look_at_schedule(world.db, world.config, now=TWO) is None  # notes the first tick
    compress = Compressor.run

    def watched(self: Compressor, batch: Any) -> Any:
        found.on_batch()
        made = compress(self, batch)
        found.compressed += batch.ids
        return made

    monkeypatch.setattr(Compressor, "run", watched)
    return found


def missing(count: int, db: OpenDb) -> None:
    """Take some latents away."""
    with db.begin() as session:
        some = select(Latent.passage_id).order_by(Latent.passage_id).limit(count)
        session.execute(delete(Latent).where(Latent.passage_id.in_(some)))


def test_a_night_over_nothing_stale_says_so_and_compresses_nothing(slept: Nights) -> None:
    night = slept.work()
    assert night.finished_at
    entry = slept.entry(night)
    assert (entry["outcome"], entry["stale"], entry["done"], entry["remains"]) == (
        *("current", {}),
        *(0, 0),
    )
    assert night.report["totals"] == {
        "collections": 1,
        **dict.fromkeys(("stale", "done", "remains", "failed", "audited", "as_text"), 0),
    }
    assert slept.compressed == []
    assert night.run_id
    run = slept.world.run(night.run_id)
    assert (run.status, run.result, run.done) == (RunStatus.SUCCEEDED, night.report["totals"], 1)


def test_the_statements_of_such_a_night_do_not_grow_with_the_passages(
    slept: Nights, engine: Engine
) -> None:
    told: list[str] = []
    event.listen(
        engine, "before_cursor_execute", lambda _, __, statement, *___: told.append(statement)
    )
    slept.work()
    few = len(told)
    slept.world.write(documents(24, first=100))
    slept.world.compress(slept.world.old)
    told.clear()
    slept.work()
    assert len(told) <= few
    assert len(told) < 80


def test_what_is_missing_is_made_and_told(slept: Nights) -> None:
    missing(5, slept.world.db)
    night = slept.work()
    entry = slept.entry(night)
    assert (entry["outcome"], entry["stale"], entry["done"]) == ("done", {"missing": 5}, 5)
    assert night.report["totals"]["remains"] == 0
    assert slept.world.latents(slept.world.old) == 12
    assert slept.world.statuses() == {DocumentStatus.INDEXED}


def test_a_promoted_checkpoint_takes_over_at_night(slept: Nights) -> None:
    slept.default = slept.world.new
    entry = slept.entry(slept.work())
    assert (entry["outcome"], entry["stale"], entry["done"]) == ("done", {"fingerprint": 12}, 12)
    assert slept.world.active() == slept.world.new


def test_a_collection_that_is_held_stays_where_it_is(slept: Nights) -> None:
    slept.default = slept.world.new
    slept.world.alter(update(Collection).values(held=True))
    missing(1, slept.world.db)
    entry = slept.entry(slept.work())
    assert (entry["outcome"], entry["done"]) == ("done", 1)
    assert slept.world.active() == slept.world.old


def test_at_the_end_of_its_window_a_night_pauses_and_the_next_one_goes_on(
    slept: Nights, small_pages: None
) -> None:
    slept.default = slept.world.new
    slept.set(nightly_hours=SECOND)
    slept.on_batch = lambda: Event().wait(1.1) and None  # the window ends in the first batch
    first = slept.work()
    entry = slept.entry(first)
    assert entry["outcome"] == "paused"
    assert entry["done"] + entry["remains"] == 12
    assert entry["remains"] >= 10
    assert slept.world.active() == slept.world.old
    assert slept.world.generations()[1][1:] == ("building", slept.world.new)

    slept.set(nightly_hours=4.0)
    slept.on_batch = lambda: None
    second = slept.entry(slept.work())
    assert (second["outcome"], second["done"]) == ("done", entry["remains"])
    assert second["stale"] == {"fingerprint": entry["remains"]}
    assert slept.world.active() == slept.world.new
    assert [number for number, *_ in slept.world.generations()] == [1, 2], "the same generation"
    assert len(slept.compressed) == len(set(slept.compressed)) == 12, "none is compressed twice"


def test_a_recompression_asked_by_hand_is_left_alone_and_named(slept: Nights) -> None:
    asked = slept.world.queue(slept.world.new)
    entry = slept.entry(slept.work())
    assert (entry["outcome"], entry["busy_with"]) == ("busy", str(asked))
    assert entry["audit"] == {"skipped": "busy"}
    row = slept.world.run(asked)
    assert (row.status, row.parent_id) == (RunStatus.QUEUED, None)
    assert slept.world.work(asked).status is RunStatus.SUCCEEDED


def test_a_refusal_of_the_gate_is_told_with_its_reason(slept: Nights) -> None:
    slept.default = slept.world.new
    with_limits(slept.world, slept.world.new, min_score=2.0)  # nothing is ever read
    slept.set(recall_margin=0.0)
    night = slept.work()
    entry = slept.entry(night)
    assert (entry["outcome"], entry["error"]["code"]) == ("refused", "generation-refused")
    assert "traceback" not in entry["error"]
    assert night.report["totals"]["failed"] == 1
    assert slept.entry(slept.work())["outcome"] == "current", "the next night repairs what answers"


def test_one_collection_that_fails_keeps_no_other_from_its_turn(slept: Nights) -> None:
    with slept.world.db.begin() as session:
        create_collection(session, "law")
    missing(12, slept.world.db)
    slept.world.shelf.compressing = _not_here  # type: ignore[method-assign]
    night = slept.work()
    entry = slept.entry(night)
    assert (entry["outcome"], entry["error"]["message"]) == ("failed", "its folder is gone")
    assert slept.entry(night, "law") == {
        **{"collection": "law", "outcome": "empty"},
        "audit": {"skipped": "empty"},
    }
    assert night.report["totals"]["failed"] == 1


def _not_here(*_: object) -> Any:
    raise ModelMissing("its folder is gone")


def test_a_night_without_collections_ends_at_once(slept: Nights) -> None:
    slept.world.alter(delete(Collection))
    night = slept.work()
    assert night.report["collections"] == {}
    assert night.report["totals"]["collections"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_whatever_commit_a_worker_dies_at_the_report_is_the_same(
    slept: Nights, small_pages: None, seed: int
) -> None:
    slept.default = slept.world.new
    slept.set(audit_passages=3)
    slept.world.dies = dying(seed, share=0.15)
    night = slept.work()
    slept.world.dies = lambda: False
    entry = slept.entry(night)
    assert (entry["outcome"], entry["stale"], entry["done"]) == ("done", {"fingerprint": 12}, 12)
    assert slept.world.active() == slept.world.new
    with slept.world.db() as session:
        kinds = [run.kind for run in session.scalars(select(Run))]
        audited = session.scalars(select(Latent.fidelity).where(Latent.fidelity.is_not(None))).all()
    assert (kinds.count(RunKind.NIGHT), kinds.count(RunKind.RECOMPRESS)) == (1, 1)
    assert len(audited) >= 3


def test_each_night_audits_other_passages_until_all_are(slept: Nights) -> None:
    slept.set(audit_passages=5, audit_threshold=1.0)
    found = [slept.entry(slept.work())["audit"] for _ in range(4)]
    assert [audit["audited"] for audit in found] == [5, 5, 2, 0]
    assert [audit["complete"] for audit in found] == [True] * 4
    with slept.world.db() as session:
        marked = session.scalars(select(Latent.serve_as_text)).all()
    assert found[-1]["as_text"] == sum(marked) > 0
    slept.set(audit_threshold=0.0)
    assert slept.entry(slept.work())["audit"]["as_text"] == 0


def test_an_untrained_checkpoint_is_not_audited(slept: Nights) -> None:
    slept.set(audit_passages=5)
    slept.world.alter(update(Checkpoint).values(trained=False))
    assert slept.entry(slept.work())["audit"] == {"skipped": "untrained"}


def test_after_its_window_a_night_audits_nothing(slept: Nights) -> None:
    slept.set(audit_passages=5, nightly_hours=1e-9)
    assert slept.entry(slept.work())["audit"] == {"skipped": "out of time"}


def test_an_audit_that_fails_is_told_and_the_night_ends(slept: Nights) -> None:
    slept.set(audit_passages=5)
    slept.world.shelf.get = _not_here  # type: ignore[method-assign]
    night = slept.work()
    assert night.finished_at
    assert slept.entry(night)["audit"]["error"]["message"] == "its folder is gone"


def test_a_worker_that_dies_between_two_collections_queues_none_of_them_twice(
    slept: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(3, slept.world.db)
    night = slept.begin()
    assert night.run_id
    with monkeypatch.context() as patch:
        patch.setattr(runs, "await_children", _killed)
        slept.visit(night.run_id)
    slept.world.step()  # its child is worked off before anybody waits for it
    slept.world._take_back()
    slept.visit(night.run_id)
    assert slept.world.run(night.run_id).status is RunStatus.QUEUED, "there was nothing to wait for"
    assert slept.entry(slept.work(night))["done"] == 3
    with slept.world.db() as session:
        kinds = [run.kind for run in session.scalars(select(Run))]
    assert kinds.count(RunKind.RECOMPRESS) == 1


def _killed(*_: object, **__: object) -> Any:
    raise Killed


def test_nothing_is_queued_for_a_night_that_was_cancelled(slept: Nights) -> None:
    night = slept.begin()
    assert night.run_id
    held = runs.take(slept.world.db, night.run_id, lease_s=60)
    assert held
    with slept.world.db.begin() as session:
        runs.cancel(session, night.run_id)
    with pytest.raises(Cancelled):
        nights.work_off(held, slept.nightly())
    with slept.world.db() as session:
        assert [run.kind for run in session.scalars(select(Run))] == [RunKind.NIGHT]


def test_a_worker_that_is_told_to_stop_gives_the_night_back(
    slept: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept.set(audit_passages=5)
    night = slept.begin()
    assert night.run_id
    assert not slept.visit(night.run_id)
    slept.world.step()
    assert slept.world.run(night.run_id).status is RunStatus.QUEUED, "its last child woke it"
    with monkeypatch.context() as patch:
        patch.setattr(nights, "stopping", lambda: True)
        assert slept.visit(night.run_id)
    run = slept.world.run(night.run_id)
    assert (run.status, run.lease, run.attempts) == (RunStatus.QUEUED, None, 0)
    assert slept.entry(slept.work(night))["audit"]["audited"] == 5


def test_a_night_that_is_cancelled_takes_its_recompressions_with_it(slept: Nights) -> None:
    missing(5, slept.world.db)
    night = slept.begin()
    assert night.run_id
    slept.visit(night.run_id)
    with slept.world.db.begin() as session:
        assert runs.cancel(session, night.run_id)
    with slept.world.db() as session:
        assert {run.status for run in session.scalars(select(Run))} == {RunStatus.CANCELLED}
    assert slept.entry(slept.work())["outcome"] == "done", "the next one goes on"


def test_a_collection_deleted_meanwhile_ends_no_night(slept: Nights) -> None:
    slept.set(audit_passages=5)
    missing(5, slept.world.db)
    night = slept.begin()
    assert night.run_id
    slept.visit(night.run_id)
    slept.world.alter(delete(Passage))
    slept.world.alter(delete(Collection))
    entry = slept.entry(slept.work(night))
    assert (entry["outcome"], entry["audit"]) == ("cancelled", {"skipped": "cancelled"})
