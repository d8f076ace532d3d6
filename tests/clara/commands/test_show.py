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
