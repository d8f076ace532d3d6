"""Which checkpoint a worker loads, and that it notices when another one is promoted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from celery.worker import state
from sqlalchemy import update

from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint
from clara.errors import CheckpointMismatch
from clara.settings import Settings
from tests.factories import make_checkpoint
from workers import bootstrap, promotions, stopping


@pytest.fixture(autouse=True)
def process(db: OpenDb, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker process that has decided nothing yet, and looks often."""
    monkeypatch.setattr(bootstrap, "database", lambda: db)
    monkeypatch.setattr(promotions, "LOOK_S", 0.01)
    monkeypatch.setattr(state, "should_stop", None)
    stopping._STOPPING.clear()
    bootstrap.chosen.cache_clear()
    yield
    stopping._STOPPING.clear()
    bootstrap.chosen.cache_clear()


def with_settings(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    given = {"base_model": "/models/default"} | values
    monkeypatch.setattr(bootstrap, "settings", lambda: Settings(_env_file=None, **given))


def promoted(db: OpenDb, **values: object) -> UUID:
    with db.begin() as session:
        session.execute(update(Checkpoint).values(active=False))
        given = {"path": "/weights", "base": "/models/own", "active": True} | values
        return make_checkpoint(session, **given).id


def test_without_a_promotion_the_untrained_checkpoint_is_taken(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_settings(monkeypatch)
    found = bootstrap.chosen()
    assert (found.path, found.base, found.promoted) == ("", "/models/default", None)


def test_the_active_checkpoint_is_taken_with_its_own_base(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_settings(monkeypatch)
    one = promoted(db, base=str(tmp_path))
    found = bootstrap.chosen()
    assert (found.path, found.base, found.promoted) == ("/weights", str(tmp_path), one)


def test_a_base_that_is_gone_is_replaced_by_that_of_the_settings(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_settings(monkeypatch)
    promoted(db, base="/models/gone")
    assert bootstrap.chosen().base == "/models/default"


def test_the_setting_comes_before_any_promotion(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(db)
    with_settings(monkeypatch, checkpoint="/weights/of/mine")
    found = bootstrap.chosen()
    assert (found.path, found.promoted) == ("/weights/of/mine", None)


def test_a_folder_that_holds_other_weights_than_were_promoted_is_refused(db: OpenDb) -> None:
    models = SimpleNamespace(weights_hash="other", checkpoint=None)
    found = bootstrap.Chosen("/weights", "/base", uuid4(), "promoted")
    with pytest.raises(CheckpointMismatch, match="holds weights other"):
        bootstrap._register(db, models, found)  # type: ignore[arg-type]


def test_a_worker_ends_itself_when_another_checkpoint_is_promoted(db: OpenDb) -> None:
    first = promoted(db)
    thread = promotions.watch(db, first)
    thread.join(0.2)
    assert thread.is_alive()
    assert state.should_stop is None
    promoted(db)
    thread.join(10)
    assert not thread.is_alive()
    assert stopping.stopping()
    assert state.should_stop == 0


def test_the_first_promotion_is_noticed_too(db: OpenDb) -> None:
    thread = promotions.watch(db, None)
    promoted(db)
    thread.join(10)
    assert stopping.stopping()


def test_a_database_that_is_away_ends_no_worker(engine: object, db: OpenDb) -> None:
    from clara.db.connect import connect, open_db

    away = open_db(connect("postgresql://nobody@127.0.0.1:1/nothing"))
    assert not promotions._changed(away, None)


def test_watching_ends_with_the_process(db: OpenDb) -> None:
    thread = promotions.watch(db, None)
    stopping._STOPPING.set()
    thread.join(10)
    assert not thread.is_alive()
    assert state.should_stop is None
