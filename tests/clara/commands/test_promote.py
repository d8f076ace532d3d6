"""The commands on the real API; what a worker does is done here."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from rich.console import Console

from api.app import create_app
from clara import registry
from clara.client import ApiProblem, Client
from clara.commands import promote
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Run
from clara.errors import InvalidInput, UnknownCheckpoint
from clara.registry import Inspected
from clara.settings import Settings
from tests.factories import make_checkpoint
from workers import runs

SCORES = {"nq": {"n": 10, "cover_em": 0.5, "options": {"mode": "latent"}}}


@pytest.fixture
def client(
    database_url: str, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    config = Settings(
        _env_file=None, database_url=database_url, redis_url=broker_url, home=tmp_path
    )
    client = Client("http://testserver")
    with TestClient(create_app(config)) as http:
        monkeypatch.setattr(client, "_http", http)
        yield client


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def made(db: OpenDb, **values: object) -> UUID:
    with db.begin() as session:
        return make_checkpoint(session, **({"path": "/weights", "name": "mine"} | values)).id


def is_active(db: OpenDb, checkpoint_id: UUID) -> bool:
    with db() as session:
        return session.get_one(Checkpoint, checkpoint_id).active


def test_scores_of_a_file_are_attached_by_name(
    client: Client, db: OpenDb, tmp_path: Path, console: Console
) -> None:
    one = made(db)
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(SCORES))
    promote.score(client, "mine", file, console)
    with db() as session:
        assert session.get_one(Checkpoint, one).scores == SCORES
    assert "nq cover_em 0.5" in printed(console)
    file.write_text("[]")
    with pytest.raises(InvalidInput, match="no numbers by set"):
        promote.score(client, "mine", file, console)


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_registered_checkpoint_is_promoted_by_id_or_name(
    client: Client, db: OpenDb, console: Console, by: str
) -> None:
    one = made(db, scores=SCORES)
    promote.promote(client, str(one) if by == "id" else "mine", console)
    assert is_active(db, one)
    assert "none is active" in printed(console)


def test_a_refusal_is_told_and_force_keeps_why(
    client: Client, db: OpenDb, console: Console
) -> None:
    one = made(db)
    with pytest.raises(ApiProblem, match="never evaluated"):
        promote.promote(client, "mine", console)
    assert not is_active(db, one)
    promote.promote(client, "mine", console, force="nobody asks it anything")
    assert is_active(db, one)
    assert "by force (nobody asks it anything)" in printed(console)


def test_scores_are_attached_before_the_gate_is_asked(
    client: Client, db: OpenDb, tmp_path: Path, console: Console
) -> None:
    one = made(db)
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(SCORES))
    promote.promote(client, "mine", console, scores=file)
    assert is_active(db, one)


def test_a_folder_is_registered_first(
    client: Client,
    db: OpenDb,
    tmp_path: Path,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    really_ended = client.ended

    def work(run_id: str) -> object:
        held = runs.take(db, UUID(run_id), lease_s=30)
        assert held
        path, base = held.run.inputs["path"], held.run.inputs["base"]
        found = Inspected("new", "f", "w", base, True, {}, path)
        with db.begin() as session:
            made_id = registry.register(session, found, scores=SCORES)
            runs.succeed(session, held, {"checkpoint_id": str(made_id)}, {}, done=1)
        return really_ended(run_id)

    monkeypatch.setattr(client, "ended", work)
    promote.promote(client, str(folder), console, base="/models/base")
    with db() as session:
        row = session.query(Checkpoint).one()
    assert (row.path, row.base, row.active) == (str(folder), "/models/base", True)


def test_a_folder_that_cannot_be_registered_is_told(
    client: Client, db: OpenDb, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    ended = client.ended

    def fail(run_id: str) -> object:
        with db.begin() as session:
            run = session.get_one(Run, UUID(run_id))
            run.status = runs.RunStatus.FAILED
            run.error = {"code": "invalid-checkpoint", "message": "adapters are damaged"}
        return ended(run_id)

    monkeypatch.setattr(client, "ended", fail)
    with pytest.raises(ApiProblem, match="adapters are damaged"):
        promote.promote(client, str(tmp_path), console)


def test_an_unknown_name_is_refused(client: Client, db: OpenDb, console: Console) -> None:
    with pytest.raises(UnknownCheckpoint, match="nobody"):
        promote.promote(client, "nobody", console)


def test_the_list_marks_the_one_that_serves(client: Client, db: OpenDb, console: Console) -> None:
    made(db, name="old", scores=SCORES)
    promote.promote(client, str(made(db, name="new", scores=SCORES)), Console(quiet=True))
    promote.show_all(client, console)
    lines = printed(console).splitlines()
    assert [line.split()[0] for line in lines if "new" in line] == ["*"]
    assert not [line for line in lines if "old" in line and "*" in line]
