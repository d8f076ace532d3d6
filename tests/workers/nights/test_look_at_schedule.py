from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from clara.db.connect import OpenDb
from clara.db.tables import Night, Run, RunKind, RunStatus
from clara.settings import Settings
from tests.factories import make_checkpoint
from workers import bootstrap, tasks
from workers.app import app, configure
from workers.nights import nights

TWO = datetime(2026, 11, 23, 2, tzinfo=UTC)
DAY = timedelta(days=1)

Look = Callable[..., UUID | None]


@pytest.fixture
def config(broker_url: str) -> Settings:
    config = Settings(_env_file=None, redis_url=broker_url, nightly="0 2 * * *")
    configure(app, config)
    return config


@pytest.fixture
def look(db: OpenDb, config: Settings) -> Look:
    """Looks at the schedule at a moment; where a night begins, it ends at once."""

    def run(now: datetime, *, works: bool = False, config: Settings = config) -> UUID | None:
        night = nights.look_at_schedule(db, config, now=now)
        if night and not works:
            with db.begin() as session:
                session.execute(update(Run).values(status=RunStatus.SUCCEEDED))
        return night

    return run


def begun(db: OpenDb) -> list[Night]:
    with db() as session:
        return list(session.scalars(select(Night).where(Night.run_id.is_not(None))))


def night_runs(db: OpenDb) -> int:
    with db() as session:
        counted = select(func.count()).select_from(Run).where(Run.kind == RunKind.NIGHT)
        return session.scalars(counted).one()


def test_a_tick_before_anybody_looked_is_noted_and_not_worked_off(db: OpenDb, look: Look) -> None:
    assert look(TWO + timedelta(hours=10)) is None
    assert (begun(db), night_runs(db)) == ([], 0)
    with db() as session:
        noted = session.scalars(select(Night)).one()
    assert (noted.tick, noted.report, noted.run_id) == (TWO, {"noted": True}, None)
    assert noted.finished_at


def test_the_next_tick_begins_one_night_with_one_run(db: OpenDb, look: Look) -> None:
    look(TWO - timedelta(hours=1))
    assert look(TWO - timedelta(seconds=1)) is None
    night = look(TWO)
    assert [look(TWO + timedelta(minutes=minute)) for minute in range(1, 4)] == [None] * 3
    (row,) = begun(db)
    assert (row.id, row.tick, row.schedule) == (night, TWO, "0 2 * * * UTC")
    assert row.report == {"skipped": [], "skipped_more": False}
    with db() as session:
        run = session.get_one(Run, row.run_id)
    assert run.kind is RunKind.NIGHT
    assert run.inputs == {"night_id": str(night), "tick": TWO.isoformat()}


def test_many_beats_at_once_begin_one_night(db: OpenDb, look: Look, config: Settings) -> None:
    look(TWO - timedelta(hours=1))
    together = Barrier(8)

    def beat(copy: int) -> UUID | None:
        together.wait()
        # some clocks are a little behind the tick
        now = TWO + timedelta(seconds=-1 if copy % 4 == 0 else copy)
        return nights.look_at_schedule(db, config, now=now)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(beat, range(8)))
    assert sum(one is not None for one in found) == 1
    assert (len(begun(db)), night_runs(db)) == (1, 1)


def test_the_first_looks_of_many_beats_note_one_tick(db: OpenDb, config: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: nights.look_at_schedule(db, config, now=TWO), range(8)))
    with db() as session:
        assert session.scalars(select(func.count()).select_from(Night)).one() == 1
    assert night_runs(db) == 0


def test_three_days_without_a_beat_are_one_night_that_names_the_others(
    db: OpenDb, look: Look
) -> None:
    look(TWO - timedelta(hours=1))
    look(TWO)
    late = look(TWO + 3 * DAY + timedelta(hours=5))
    assert look(TWO + 3 * DAY + timedelta(hours=6)) is None
    row = begun(db)[-1]
    assert (row.id, row.tick) == (late, TWO + 3 * DAY)
    assert row.report["skipped"] == [(TWO + days * DAY).isoformat() for days in (1, 2)]
    assert night_runs(db) == 2


def test_a_long_silence_names_a_month_of_ticks_and_says_that_there_were_more(
    db: OpenDb, look: Look
) -> None:
    look(TWO)
    look(TWO + 400 * DAY)
    report = begun(db)[0].report
    assert (len(report["skipped"]), report["skipped_more"]) == (nights.SKIPPED, True)


def test_a_clock_that_is_behind_begins_no_earlier_tick(db: OpenDb, look: Look) -> None:
    look(TWO)
    assert look(TWO + 3 * DAY)
    assert look(TWO + 2 * DAY + timedelta(hours=1)) is None
    assert len(begun(db)) == 1


def test_no_night_begins_while_one_is_worked_off(db: OpenDb, look: Look) -> None:
    look(TWO)
    assert look(TWO + DAY, works=True)
    assert look(TWO + 2 * DAY) is None
    with db.begin() as session:
        session.execute(update(Run).values(status=RunStatus.CANCELLED))
    assert look(TWO + 2 * DAY + timedelta(hours=3))
    assert [row.tick for row in begun(db)] == [TWO + DAY, TWO + 2 * DAY]


def test_a_new_schedule_begins_with_its_next_tick(db: OpenDb, look: Look, config: Settings) -> None:
    look(TWO)
    other = config.model_copy(update={"nightly": "0 3 * * *"})
    assert look(TWO + timedelta(hours=10), config=other) is None
    assert look(TWO + DAY, config=other) is None
    assert look(TWO + DAY + timedelta(hours=1), config=other)


def test_a_tick_that_happens_twice_is_one_night(db: OpenDb, look: Look, config: Settings) -> None:
    berlin = config.model_copy(update={"nightly": "30 2 * * *", "nightly_zone": "Europe/Berlin"})
    moment = datetime(2026, 10, 24, 12, tzinfo=UTC)
    look(moment, config=berlin)
    while moment < datetime(2026, 10, 25, 12, tzinfo=UTC):
        moment += timedelta(minutes=10)
        look(moment, config=berlin)
    assert [row.tick for row in begun(db)] == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]


def test_without_a_schedule_no_night_is_due(db: OpenDb, look: Look, config: Settings) -> None:
    never = config.model_copy(update={"nightly": ""})
    assert look(TWO, config=never) is None
    with db() as session:
        assert session.scalars(select(func.count()).select_from(Night)).one() == 0


def test_the_databases_clock_decides_where_no_moment_is_given(db: OpenDb, config: Settings) -> None:
    every = config.model_copy(update={"nightly": "* * * * *"})
    assert nights.look_at_schedule(db, every) is None  # noted
    with db.begin() as session:
        session.execute(update(Night).values(tick=Night.tick - timedelta(minutes=2)))
    night = nights.look_at_schedule(db, every)
    assert night
    with db() as session:
        age = session.scalars(select(func.clock_timestamp() - Night.tick).where(Night.id == night))
        assert age.one() < timedelta(minutes=2)


def test_beat_asks_for_a_look_every_minute_that_expires(config: Settings) -> None:
    asked = app.conf.beat_schedule["look_at_schedule"]
    assert asked == {"task": "look_at_schedule", "schedule": 60.0, "options": {"expires": 60.0}}
    assert app.conf.task_routes["look_at_schedule"] == {"queue": "upkeep"}
    assert app.conf.task_routes["work_off_night"] == {"queue": "recompress"}


def test_the_task_looks_with_the_settings_of_its_process(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = config.model_copy(update={"nightly": "* * * * *"})
    monkeypatch.setattr(bootstrap, "database", lambda: db)
    monkeypatch.setattr(tasks, "settings", lambda: every)
    tasks.look_at_schedule()
    with db.begin() as session:
        session.execute(update(Night).values(tick=Night.tick - timedelta(minutes=2)))
    tasks.look_at_schedule()
    assert night_runs(db) == 1


def test_the_task_works_a_night_off(
    db: OpenDb, look: Look, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "database", lambda: db)
    monkeypatch.setattr(bootstrap, "loaded", SimpleNamespace)  # nothing here computes
    monkeypatch.setattr(bootstrap, "default_checkpoint", make_checkpoint)
    monkeypatch.setattr(tasks, "settings", lambda: config)
    look(TWO)
    look(TWO + DAY, works=True)
    (night,) = begun(db)
    tasks.work_off_night(str(night.run_id))
    (night,) = begun(db)
    assert night.finished_at
    assert night.report["collections"] == {}
