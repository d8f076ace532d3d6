from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clara.errors import InvalidInput
from clara.training.curves import curves, left_s, plot, smoothed
from clara.training.events import NAME


def step(number: int, **changes: Any) -> dict[str, Any]:
    plain = {"loss": 4.0 - number, "parts": {"answer": 3.5}, "rate": 0.1, "gradient": 1.0}
    more = {"places": 100, "seconds": 0.5, "at": 0.5 * number, "share": number / 4}
    return {"number": number, **plain, **more, **changes}


def score(number: int, value: float, **more: Any) -> dict[str, Any]:
    return {"scored": number, "at": 1.0, "score": value, "wrong": value + 1, **more}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A training killed behind step 3, on its way again, with a line half written."""
    lines = [
        {"begun": 0, "of": 4},
        step(1),
        step(2),
        score(2, 3.0, best=True),
        step(3, loss=9.0),
        {"begun": 2, "of": 4},
        step(3),
        score(3, 2.0, best=True, cover_em=0.25),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / NAME).write_text(text + '{"number": 4, "lo')
    return tmp_path


def test_curves_hold_what_stands(out: Path) -> None:
    found = curves(out)
    assert json.loads(json.dumps(found)) == found
    assert found["steps"] == [1, 2, 3]
    assert found["loss"] == [3.0, 2.0, 1.0]
    assert found["tokens_per_second"] == [200.0] * 3
    assert found["parts"] == {"answer": [3.5] * 3}
    assert found["dev"] == {
        "steps": [2, 3],
        "score": [3.0, 2.0],
        "wrong": [4.0, 3.0],
        "cover_em": [None, 0.25],
    }
    assert found["best"] == {"score": 2.0, "step": 3}
    assert (found["of"], found["share"], found["at"], found["resumed"]) == (4, 0.75, 1.5, [2])
    assert left_s(found) == pytest.approx(0.5)


def test_curves_are_drawn_while_a_training_runs(out: Path) -> None:
    png = plot(out, out / "plots" / "curves.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in png.parent.iterdir()] == ["curves.png"]


def test_a_training_without_a_step_has_empty_curves(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    found = curves(tmp_path)
    assert (found["steps"], found["best"], left_s(found)) == ([], None, None)
    assert plot(tmp_path, tmp_path / "curves.png").exists()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no training"):
        curves(tmp_path)


def test_a_picture_that_cannot_be_written_is_refused(out: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be written"):
        plot(out, out / "curves.nothing")


def test_smoothing_keeps_a_constant_and_begins_at_the_first_value() -> None:
    assert smoothed([2.0] * 5) == pytest.approx([2.0] * 5)
    assert smoothed([4.0, 0.0])[0] == 4.0
    assert smoothed([]) == []
