from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from clara import client as http
from clara.client import ApiProblem, Json
from clara.commands import recompress as command

PLAN: Json = {
    "collection": "shop",
    "checkpoint": "[new]",
    "checkpoint_id": "1",
    "fingerprint": "0123456789abcdef",
    "way": "switched",
    "passages": 12_345,
    "stale": {"text": 3, "damaged": 1, "fingerprint": 12_000, "missing": 341},
    "too_long": 7,
    "to_make": 12_335,
    "tokens": 2_467_000,
    "bytes": {"value": 18_432 * 12_335, "basis": "16 rows, 576 wide"},
    "seconds": {"value": 5_400.0, "basis": "457 tokens a second: the last 20 parts"},
}
GATE = {"reasons": ["Recall@5 of 100 passages went from 0.900 to 0.910 (margin 0.02)"]}
RESULT: Json = {
    "outcome": "switched",
    "done": 12_335,
    "skipped": 7,
    "remains": 0,
    "forgotten": 4_000,
    "generation": 4,
    "gate": GATE,
}


class Api:
    """Stands where a client stands; tells a run's life look by look."""

    def __init__(self, *looks: Json) -> None:
        self.looks = list(looks)
        self.started: list[tuple[str, Json]] = []

    def plan_recompression(self, collection: str, **_: Any) -> Json:
        return PLAN | {"collection": collection}

    def recompress(self, collection: str, **options: Any) -> str:
        self.started.append((collection, options))
        return "run-1"

    def run(self, _: str) -> Json:
        return self.looks.pop(0)


def look(status: str, **more: Any) -> Json:
    progress = {"done": 64, "total": 12_335, "phase": "compressing"}
    return {"status": status, "progress": progress, "result": None, "error": None} | more


def shown(api: Any, **options: Any) -> str:
    console = Console(width=120, record=True, file=StringIO())
    given: Json = {"checkpoint": None, "dry_run": False, "gate": True, "wait": False}
    command.recompress(api, "shop", console, **given | {"rebuild_indexes": False} | options)
    return console.export_text()


def test_a_plan_is_numbers_with_units_and_what_they_rest_on() -> None:
    api = Api()
    told = shown(api, dry_run=True)
    assert "shop with [new] (0123456789ab)" in told
    for line in (
        "passages 12,345",
        "fingerprint 12,000 passages: latents of another compressor only",
        "too long 7 passages that stay text",
        "to make 12,335 latents",
        "2,467,000 tokens to read",
        "216.8 MiB 16 rows, 576 wide",
        "90 min 457 tokens a second: the last 20 parts",
        "a new generation is made beside the active one",
    ):
        assert line in " ".join(told.split()), line
    assert api.started == []


def test_it_starts_with_what_was_asked_for_and_does_not_wait() -> None:
    api = Api()
    told = shown(api, checkpoint="new", gate=False)
    asked = {"checkpoint": "new", "gate": False, "rebuild_indexes": False}
    assert api.started == [("shop", asked)]
    assert "run run-1" in told


def test_waiting_tells_how_far_it_is_and_what_it_came_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "EVERY_S", 0.0)
    fast = {"done": 128, "total": 12_335, "phase": "compressing", "rate": 10.0}
    api = Api(
        look("running"),
        look("running"),
        look("running", progress=fast | {"seconds_left": 1220.0}),
        look("succeeded", result=RESULT),
    )
    told = shown(api, wait=True)
    assert told.count("compressing: 64 of 12,335 passages") == 1
    assert "compressing: 128 of 12,335 passages, 10.0 a second, 20 min left" in told
    assert "switched: 12,335 latents made, 7 passages stay text, 4,000 old latents deleted" in told
    assert "gate: Recall@5 of 100 passages went from 0.900 to 0.910" in told
    assert "generation 4 answers" in told


def test_a_refusal_is_told_in_the_gates_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "EVERY_S", 0.0)
    words = "generation 4 does not take over: Recall@5 of 100 passages fell from 0.900 to 0.700"
    failed = look("failed", error={"message": words, "remedy": "Train further."})
    with pytest.raises(ApiProblem, match=r"fell from 0\.900 to 0\.700"):
        shown(Api(failed), wait=True)


def test_generations_and_going_back_are_shown() -> None:
    row = {
        "number": 2,
        "status": "active",
        "checkpoint": "[new]",
        "fingerprint": "0123456789abcdef",
        "latents": 12_345,
        "activated_at": "2026-11-23T02:03:04Z",
        "gate": GATE,
    }

    class Generations:
        def generations(self, _: str) -> Json:
            return {"collection": "shop", "held": True, "generations": [row]}

        def roll_back(self, _: str, *, to: int | None) -> Json:
            return {"generation": row | {"number": to}, "cancelled": "run-9"}

    console = Console(width=200, record=True, file=StringIO())
    client: Any = Generations()
    command.show_generations(client, "shop", console)
    command.roll_back(client, "shop", console, to=1)
    told = console.export_text()
    for words in ("[new]", "12,345", "2026-11-23 02:03", "Recall@5", "held: promotions"):
        assert words in told, words
    assert "generation 1 answers: [new]" in told
    assert "run run-9 cancelled" in told


def test_a_new_lexical_index_is_in_the_plan_and_in_the_end() -> None:
    console = Console(width=200, record=True, file=StringIO())
    basis = "1,200 passages a second: the last index that was made"
    rebuild = {"passages": 12_345, "seconds": {"value": 10.3, "basis": basis}}
    command.show_plan(PLAN | {"rebuild": rebuild}, console)
    command.show_end({"result": RESULT | {"indexed": 12_345}}, console)
    told = " ".join(console.export_text().split())
    assert f"to index 12,345 passages, in a new lexical index 10 s {basis}" in told
    assert "12,345 passages in a new lexical index" in told.split("switched: ")[1]


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1023, "1,023 B"), (18_432, "18.0 KiB"), (3 * 2**40, "3.0 TiB")]
)
def test_bytes_are_told_in_the_unit_a_person_would_use(count: int, said: str) -> None:
    assert command.bytes_of(count) == said


def test_the_commands_take_the_options_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from clara.cli import app

    calls: list[tuple[str, str, Json]] = []

    def call(_: Any, method: str, path: str, **request: Any) -> Json:
        calls.append((method, path, request.get("json", {})))
        return PLAN if request.get("json", {}).get("dry_run") else {"run_id": "run-1"}

    monkeypatch.setattr(http.Client, "_call", call)
    given = ["recompress", "-c", "shop", "--checkpoint", "new", "--no-gate", "--api", "http://x"]
    assert CliRunner().invoke(app, [*given, "--rebuild-indexes"]).exit_code == 0
    assert [body for _, _, body in calls] == [
        {"checkpoint": "new", "dry_run": True, "rebuild_indexes": True},
        {"checkpoint": "new", "gate": False, "rebuild_indexes": True},
    ]
