"""How an answer looks on a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from clara.commands import show

ANSWER: dict[str, Any] = {
    "text": "Copper.",
    "mode": "latent",
    "checkpoint": {"name": "tiny", "fingerprint": "f", "trained": True},
    "generation": 3,
    "notices": [],
    "degraded": [],
    "timings": {"queue": 1.0, "total": 12.4},
    "citations": [],
}


@pytest.mark.parametrize(
    ("generation", "told"),
    [(3, "total 12 ms | generation 3, tiny"), (None, "total 12 ms")],
    ids=["of a generation", "of an earlier release"],
)
def test_an_answer_names_the_generation_and_the_checkpoint_it_is_from(
    generation: int | None, told: str
) -> None:
    console = Console(width=100, record=True, quiet=False, file=None, force_terminal=False)
    with console.capture() as shown:
        show.answer(
            {"question": "What conducts?", "answer": ANSWER | {"generation": generation}}, console
        )
    (line,) = [row.strip("\u2502 ") for row in shown.get().splitlines() if "total" in row]
    assert line == f"queue 1 ms | {told}"


RUN: dict[str, Any] = {
    "id": "84b4ebc6-0854-4e1b-a063-68848711ca34",
    "kind": "recompress_part",
    "status": "failed",
    "progress": {"done": 1, "total": 1_500, "seconds_left": 90.0},
    "attempts": 3,
    "created_at": "2026-11-23T01:02:03Z",
    "error": {"code": "out-of-memory", "message": "a batch of 16,384 tokens did not fit"},
}


@pytest.mark.parametrize("width", [80, 160])
def test_ids_status_and_errors_of_runs_are_whole_on_any_terminal(width: int) -> None:
    console = Console(width=width, force_terminal=False)
    with console.capture() as shown:
        show.runs([RUN], console)
    table, row, *errors = shown.get().splitlines()
    assert row.split()[:4] == [RUN["id"], "recompress_part", "failed", "1/1,500"]
    assert ("tries" in table) is (width == 160)
    assert "out-of-memory: a batch of 16,384 tokens did not fit" in " ".join(errors)
