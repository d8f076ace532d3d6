from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from clara.cli import app
from clara.client import ApiUnreachable, Json
from clara.commands import nights as shown

TOTALS = {name: number for number, name in enumerate(shown.TOTALS, 41)}
NIGHT: Json = {
    "id": "11111111-2222-3333-4444-555555555555",
    "schedule": "0 3 * * * Europe/Berlin",
    "tick": "2026-11-23T03:00:00+01:00",
    "status": "succeeded",
    "totals": TOTALS,
    "finished_at": "2026-11-23T02:12:00Z",
    "ends": "2026-11-23T06:00:00Z",
    "skipped": ["2026-11-22T02:00:00Z"],
    "skipped_more": True,
    "collections": [
        {
            "collection": "shop",
            "outcome": "done",
            "stale": {"fingerprint": 7, "missing": 2},
            "done": 9,
            "remains": 0,
            "seconds": 12.34,
            "audit": {"audited": 5, "kept": 0.923, "as_text": 2, "complete": False},
        },
        {"collection": "[bold]", "outcome": "busy", "busy_with": "run-7"},
        {
            "collection": "law",
            "outcome": "refused",
            "error": {"message": "Recall@5 fell from 0.9 to 0.5"},
            "audit": {"skipped": "untrained"},
        },
    ],
}


class Answers:
    """Stands where a client stands."""

    def __init__(self, answer: Json) -> None:
        self.answer = answer

    def nights(self, **_: Any) -> Json:
        return self.answer

    def night(self, _: str) -> Json:
        return self.answer


def words(show: Any, answer: Json, *args: Any, **options: Any) -> str:
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as capture:
        show(Answers(answer), console, *args, **options)
    return capture.get()


def test_a_line_per_night_with_its_sums_and_the_next_one() -> None:
    page = {
        "nights": [NIGHT, NIGHT | {"status": None, "totals": {}}],
        "schedule": NIGHT["schedule"],
        "due": "2026-11-24T02:00:00Z",
    }
    text = words(shown.nights, page, limit=20)
    first, second = (line for line in text.splitlines() if NIGHT["id"] in line)
    assert "2026-11-23 02:00Z" in first
    assert first.split()[-len(TOTALS) :] == [str(number) for number in TOTALS.values()]
    assert "noted" in second
    assert "next 2026-11-24 02:00Z (0 3 * * * Europe/Berlin)" in text


def test_no_schedule_is_said() -> None:
    assert "CLARA_NIGHTLY is empty" in words(
        shown.nights, {"nights": [], "schedule": None, "due": None}, limit=20
    )


def test_a_night_tells_each_collection_and_what_was_skipped() -> None:
    text = words(shown.night, NIGHT, NIGHT["id"])
    assert "due 2026-11-23 02:00Z, ended 2026-11-23 02:12Z" in text
    assert "skipped, nothing ran then: 2026-11-22 02:00Z and more" in text
    assert "7 fingerprint, 2 missing" in text
    assert "5 told, 0.92 kept, 2 as text, cut short" in text
    assert "[bold]: recompressed by run run-7, which was left alone" in text
    assert "none: untrained" in text
    assert "law: Recall@5 fell from 0.9 to 0.5" in text


def test_a_night_at_work_says_when_it_pauses() -> None:
    text = words(shown.night, NIGHT | {"finished_at": None, "status": "running"}, NIGHT["id"])
    assert "due 2026-11-23 02:00Z, pauses 2026-11-23 06:00Z" in text


@pytest.mark.parametrize("arguments", [[], [NIGHT["id"]]])
def test_the_command_asks_the_api(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["nights", *arguments, "--api", "http://127.0.0.1:9"])
    assert isinstance(done.exception, ApiUnreachable)
