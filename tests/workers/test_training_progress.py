from __future__ import annotations

from typing import Any

from workers.training_progress import WINDOW, Pace

BEGUN = {"begun": 0, "of": 100, "device": "cpu", "dtype": "float32", "records": 9, "dev": 2}


def step(number: int, *, seconds: float = 2.0, places: int = 100, of: int = 100) -> dict[str, Any]:
    return {
        "number": number,
        "loss": 1.0,
        "parts": {"answer": 1.0},
        "rate": 0.1,
        "places": places,
        "seconds": seconds,
        "at": seconds * number,
        "share": number / of,
    }


def test_speed_is_that_of_the_last_steps() -> None:
    pace = Pace({})
    pace.note(BEGUN)
    for number in range(1, 5):
        pace.note(step(number, seconds=50.0))
    for number in range(5, 5 + WINDOW):
        pace.note(step(number, seconds=2.0))
    assert pace.details()["tokens_per_s"] == 50.0


def test_time_left_follows_the_share_that_is_done() -> None:
    pace = Pace({})
    pace.note(BEGUN)
    pace.note(step(25, seconds=2.0))
    assert pace.details()["seconds_left"] == 150.0


def test_what_an_earlier_attempt_told_stays_until_it_is_told_anew() -> None:
    known = {"loss": 3.0, "scores": {"step": 10, "score": 2.0}}
    pace = Pace(known, done=12, steps=100)
    assert (pace.done, pace.steps, pace.details()) == (12, 100, known)
    pace.note(BEGUN | {"begun": 10})
    assert (pace.done, pace.steps) == (10, 100)
    pace.note(step(11))
    assert pace.details()["scores"] == {"step": 10, "score": 2.0}
    assert pace.details()["loss"] == 1.0


def test_scores_are_kept_without_what_is_no_score() -> None:
    pace = Pace({})
    pace.note({"scored": 5, "at": 9.0, "score": 1.5, "wrong": 2.5, "best": True})
    assert pace.details() == {"scores": {"step": 5, "score": 1.5, "wrong": 2.5}}
