"""`clara runs` on the real API and a real record."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from rich.console import Console
from typer.testing import CliRunner

from api.app import create_app
from api.routes import runs as routes
from clara import cli
from clara import client as clients
from clara.client import ApiProblem, Client
from clara.commands import runs
from clara.commands.show import seconds
from clara.db.connect import OpenDb
from clara.db.tables import RunKind, RunStatus
from clara.errors import InvalidInput
from clara.settings import Settings
from tests.factories import make_run
from tests.workers.test_runs import stored

ERROR = {
    "code": "out-of-memory",
    "message": "no memory for [1, 2]",
    "remedy": "Take a smaller batch.",
    "traceback": 'File "loop.py", line 3, in step',
}
FAILED: dict[str, Any] = {
    "attempts": 3,
    "error": ERROR,
    "finished_at": datetime(2026, 3, 4, 12, tzinfo=UTC),
}


@pytest.fixture
def client(
    database_url: str, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    config = Settings(
        _env_file=None, database_url=database_url, redis_url=broker_url, home=tmp_path
    )
    with TestClient(create_app(config)) as http:
        monkeypatch.setattr(clients.httpx, "Client", lambda **_: http)
        monkeypatch.setattr(http, "close", lambda: None)  # a second command uses it again
        yield Client("http://testserver")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def made(db: OpenDb, kind: RunKind, status: RunStatus, **values: Any) -> Any:
    with db.begin() as session:
        return make_run(session, kind, status, **values).id


def failed(db: OpenDb, kind: RunKind = RunKind.REGISTER, **values: Any) -> Any:
    return made(db, kind, RunStatus.FAILED, **FAILED | values)


def test_one_run_is_told_in_full_with_its_traceback(
    client: Client, db: OpenDb, console: Console
) -> None:
    run_id = failed(db, inputs={"path": "/weights"}, phase="hashing", done=3, total=9)
    runs.show(client, str(run_id), console)
    text = printed(console)
    for told in (
        str(run_id),
        "hashing, 3 of 9",
        '{"path": "/weights"}',
        "out-of-memory: no memory for [1, 2]",
        "Take a smaller batch.",
        'File "loop.py", line 3, in step',
    ):
        assert told in text
    assert "part of" not in text  # nothing is told of what it has not


def test_a_whole_tells_how_far_its_parts_are(client: Client, db: OpenDb, console: Console) -> None:
    whole = made(db, RunKind.RECOMPRESS, RunStatus.RUNNING, phase="compressing")
    part = made(
        db,
        *(RunKind.RECOMPRESS_PART, RunStatus.RUNNING),
        **{"parent_id": whole, "done": 1000, "total": 4000, "rate": 1.5},
    )
    made(db, RunKind.RECOMPRESS_PART, RunStatus.QUEUED, parent_id=whole, total=2000)
    runs.show(client, str(whole), console)
    assert "1 queued, 1 running; 1,000 of 6,000, 1.5 a second, 56 min left" in ordered(
        printed(console)
    )
    runs.show(client, str(part), console)
    assert any(
        line.startswith("part of") and str(whole) in line for line in printed(console).splitlines()
    )


def ordered(text: str) -> str:
    return text.replace("1 running, 1 queued;", "1 queued, 1 running;")


def test_runs_are_cancelled_until_one_cannot_be(
    client: Client, db: OpenDb, console: Console
) -> None:
    ids = [made(db, RunKind.QUERY, RunStatus.QUEUED) for _ in range(2)]
    ended = failed(db)
    with pytest.raises(ApiProblem, match="is failed"):
        runs.cancel(client, [*map(str, ids), str(ended)], console)
    assert {stored(db, run_id).status for run_id in ids} == {RunStatus.CANCELLED}


def test_retrying_goes_on_past_what_is_refused(
    client: Client, db: OpenDb, console: Console
) -> None:
    ids = [failed(db), failed(db, RunKind.COMPRESS), failed(db)]
    assert runs.retry(client, [str(one) for one in ids], console) == 1
    statuses = [stored(db, one).status for one in ids]
    assert statuses == [RunStatus.QUEUED, RunStatus.FAILED, RunStatus.QUEUED]
    assert "deleted" in printed(console)


def test_all_that_failed_are_retried_page_by_page(
    client: Client, db: OpenDb, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "AT_ONCE", 2)
    ids = [failed(db) for _ in range(5)]
    old = failed(db, finished_at=datetime(2025, 1, 1, tzinfo=UTC))
    which = {"kind": "register", "code": "out-of-memory", "collection": None}
    assert runs.retry_failed(client, which, "2026-01-01T00:00+00:00", console) == 0
    assert {stored(db, one).status for one in ids} == {RunStatus.QUEUED}
    assert stored(db, old).status is RunStatus.FAILED
    assert "5 queued, 0 refused" in printed(console)


@pytest.mark.parametrize(
    ("age", "expected"),
    [("90m", timedelta(minutes=90)), ("2h", timedelta(hours=2)), ("3d", timedelta(days=3))],
)
def test_a_moment_can_be_an_age(age: str, expected: timedelta) -> None:
    before = datetime.now(UTC)
    found = runs.moment(age)
    assert before - expected <= found <= datetime.now(UTC) - expected


@pytest.mark.parametrize("given", ["yesterday", "2x", "", "-1h", "99999999d"])
def test_what_is_no_moment_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        runs.moment(given)
    assert caught.value.field == "--since"


def test_a_moment_without_a_zone_is_of_this_machine() -> None:
    assert runs.moment("2026-01-31T08:00").utcoffset() is not None
    told = runs.moment("2026-01-31T08:00+01:00")
    assert told == datetime(2026, 1, 31, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "told"), [(None, ""), (45, "45 s"), (720.0, "12 min"), (12_600.0, "3.5 h")]
)
def test_seconds_are_told_in_the_unit_that_is_read(count: float | None, told: str) -> None:
    assert seconds(count) == told


def command(*words: str) -> Any:
    return CliRunner().invoke(cli.app, ["runs", *words], env={"COLUMNS": "250"})


def test_the_commands_list_and_retry(
    client: Client, db: OpenDb, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.runs, "console", console)
    run_id = failed(db)
    assert command("list", "--status", "failed", "--code", "out-of-memory").exit_code == 0
    assert str(run_id) in printed(console)
    assert "out-of-memory: no memory" in printed(console)
    assert command("retry", "--failed", "--kind", "register").exit_code == 0
    assert stored(db, run_id).status is RunStatus.QUEUED
    assert command("cancel", str(run_id)).exit_code == 0
    assert command("retry", str(run_id), str(run_id)).exit_code == 1  # the second is refused
    assert command("show", str(run_id)).exit_code == 0


@pytest.mark.parametrize(
    "words", [[], ["x", "--failed"], ["x", "--kind", "query"], ["--kind", "query"]]
)
def test_a_retry_names_ids_or_says_failed(words: list[str]) -> None:
    assert command("retry", *words).exit_code == 2
