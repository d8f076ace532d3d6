from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from clara.db.connect import OpenDb
from clara.db.tables import Night, RunKind, RunStatus
from clara.settings import Settings
from tests.factories import make_run

TWO = datetime(2026, 11, 23, 2, tzinfo=UTC)


def make_night(db: OpenDb, *, status: RunStatus | None = None, **values: Any) -> str:
    """A night, with a run where a status is given."""
    details = values.pop("details", {})
    with db.begin() as session:
        run = make_run(session, RunKind.NIGHT, status, details=details) if status else None
        given = {"schedule": "0 2 * * * UTC", "tick": TWO, "run_id": run.id if run else None}
        night = Night(**given | values)
        session.add(night)
        session.flush()
        return str(night.id)


def test_a_night_that_has_ended_shows_its_report(client: TestClient, db: OpenDb) -> None:
    shop = {"collection": "shop", "outcome": "done", "stale": {"missing": 3}, "done": 3}
    night = make_night(
        db,
        status=RunStatus.SUCCEEDED,
        finished_at=TWO + timedelta(minutes=3),
        report={
            "skipped": [(TWO - timedelta(days=1)).isoformat()],
            "skipped_more": False,
            "ends": (TWO + timedelta(hours=4)).isoformat(),
            "totals": {"collections": 1, "stale": 3, "done": 3},
            "collections": {str(uuid4()): shop},
        },
    )
    found = client.get(f"/v1/nights/{night}").json()
    assert found["status"] == "succeeded"
    assert found["collections"] == [shop]
    assert found["totals"]["done"] == 3
    assert found["skipped"] == ["2026-11-22T02:00:00Z"]
    assert found["ends"] == "2026-11-23T06:00:00Z"
    (listed,) = client.get("/v1/nights").json()["nights"]
    assert listed == {name: found[name] for name in listed}


def test_a_night_at_work_shows_how_far_it_is(client: TestClient, db: OpenDb) -> None:
    entry = {"collection": "shop", "run_id": str(uuid4())}
    night = make_night(
        db,
        status=RunStatus.RUNNING,
        report={"skipped": [], "skipped_more": False},
        details={"ends": (TWO + timedelta(hours=4)).isoformat(), "collections": {"a": entry}},
    )
    found = client.get(f"/v1/nights/{night}").json()
    assert (found["status"], found["finished_at"]) == ("running", None)
    assert found["collections"] == [entry]


def test_the_tick_before_the_first_look_is_listed_without_a_run(
    client: TestClient, db: OpenDb
) -> None:
    night = make_night(db, report={"noted": True}, finished_at=TWO)
    found = client.get(f"/v1/nights/{night}").json()
    assert (found["status"], found["run_id"], found["collections"]) == (None, None, [])


def test_nights_come_in_pages_newest_first(client: TestClient, db: OpenDb) -> None:
    made = [make_night(db, tick=TWO + timedelta(days=day)) for day in range(5)]
    listed, after = [], None
    while True:
        page = client.get("/v1/nights", params={"limit": 2} | ({"after": after} if after else {}))
        listed += [row["id"] for row in page.json()["nights"]]
        after = page.json()["next"]
        if after is None:
            break
    assert listed == made[::-1]


def test_the_list_says_when_the_next_night_is_due(client: TestClient) -> None:
    page = client.get("/v1/nights").json()
    assert page["schedule"] == "0 2 * * * UTC"
    due = datetime.fromisoformat(page["due"])
    assert timedelta() < due - datetime.now(UTC) <= timedelta(days=1)
    assert (due.hour, due.minute) == (2, 0)


def test_without_a_schedule_none_is_due(config: Settings) -> None:
    app = create_app(config.model_copy(update={"nightly": ""}))
    with TestClient(app) as client:
        page = client.get("/v1/nights").json()
    assert (page["schedule"], page["due"]) == (None, None)


@pytest.mark.parametrize(("night", "status"), [(str(UUID(int=1)), 404), ("tonight", 422)])
def test_a_night_that_is_none_is_a_problem_that_names_it(
    client: TestClient, night: str, status: int
) -> None:
    answer = client.get(f"/v1/nights/{night}")
    assert answer.status_code == status
    assert answer.json()["field"] == "night_id"
