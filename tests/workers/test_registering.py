"""Register runs on a real record: folders looked through, whole and on their base."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Run, RunKind, RunStatus
from clara.model import checkpoint as checkpoints
from clara.model.models import load_models
from clara.serving.engine import Engine
from clara.settings import Settings
from tests.tiny import tiny_base, tiny_checkpoint
from tests.workers.test_runs import queued, stored
from workers import bootstrap, tasks


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def folder(tmp_path: Path, base: Path) -> Path:
    return tiny_checkpoint(tmp_path / "weights", base)


@pytest.fixture(autouse=True)
def record(
    db: OpenDb, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    config = Settings(_env_file=None, home=tmp_path, base_model=str(base), device="cpu")
    engine = Engine()
    monkeypatch.setattr(bootstrap, "database", lambda: db)
    monkeypatch.setattr(bootstrap, "loader", lambda: engine)
    monkeypatch.setattr(tasks, "settings", lambda: config)
    yield
    engine.close()


def registered(db: OpenDb, path: Path, base: str = "") -> Run:
    inputs = {"path": str(path), "base": base}
    run_id = queued(db, kind=RunKind.REGISTER, inputs=inputs)
    tasks.register_checkpoint(str(run_id))
    return stored(db, run_id)


def row_of(db: OpenDb, run: Run) -> Checkpoint:
    assert run.result, run.error
    with db() as session:
        return session.get_one(Checkpoint, UUID(run.result["checkpoint_id"]))


def test_a_row_says_what_loading_the_folder_would(db: OpenDb, folder: Path, base: Path) -> None:
    row = row_of(db, registered(db, folder))
    models = load_models(checkpoints.load(folder), base=base, device="cpu")
    assert (row.fingerprint, row.weights_hash) == (models.fingerprint, models.weights_hash)
    assert (row.name, row.trained, row.path) == ("tiny", True, str(folder.resolve()))
    assert row.config["compr_rate"] == 4
    assert not row.active


def test_the_same_weights_again_are_the_same_row_at_their_newest_place(
    db: OpenDb, folder: Path
) -> None:
    first = row_of(db, registered(db, folder))
    moved = folder.rename(folder.with_name("moved"))
    again = row_of(db, registered(db, moved))
    assert again.id == first.id
    assert again.path == str(moved.resolve())


def test_a_base_that_is_elsewhere_by_now_is_found_by_its_hash(
    db: OpenDb, tmp_path: Path, base: Path
) -> None:
    gone = tiny_base(tmp_path / "gone")
    folder = tiny_checkpoint(tmp_path / "weights", gone)
    gone.rename(tmp_path / "elsewhere")
    assert row_of(db, registered(db, folder)).base == str(base)


def test_another_base_is_refused_by_name(db: OpenDb, tmp_path: Path, base: Path) -> None:
    from dataclasses import replace

    from clara.model.fingerprints import base_hash

    known = replace(
        checkpoints.load(tiny_checkpoint(tmp_path / "first", base)), base_hash=base_hash(base)
    )
    folder = checkpoints.save(known, tmp_path / "weights")
    other = tiny_base(tmp_path / "other", seed=7)
    run = registered(db, folder, base=str(other))
    assert run.status is RunStatus.FAILED
    assert run.error
    assert run.error["code"] == "checkpoint-mismatch"


def test_a_damaged_folder_is_refused_and_leaves_no_row(db: OpenDb, folder: Path) -> None:
    (folder / "adapters.safetensors").write_bytes(b"nothing")
    run = registered(db, folder)
    assert (run.status, run.attempts) == (RunStatus.FAILED, 1)
    assert run.error
    assert run.error["code"] == "invalid-checkpoint"
    with db() as session:
        assert session.query(Checkpoint).count() == 0
