"""Tiny trainings as plans: files, a base, and where they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from clara.training.events import Event, events, standing
from clara.training.plan import Plan
from tests.clara.training.conftest import DOCUMENTS, config
from tests.clara.training.files import write

MakePlan = Callable[..., Plan]


@pytest.fixture
def make_plan(base: Path, tmp_path: Path) -> MakePlan:
    """A stage 1 on the CPU in float32; changes go into its configuration, options into the plan."""
    data = write(tmp_path / "stage1.jsonl", lines())

    def run(out: str = "out", *, options: dict[str, Any] | None = None, **changes: Any) -> Plan:
        given = {"data": (data,), "base": str(base), "device": "cpu", **(options or {})}
        return Plan(config(1, **changes), out=tmp_path / out, **given)

    return run


def lines() -> list[dict[str, Any]]:
    """Records of stage 1: six of questions and a paraphrase."""
    asked: list[dict[str, Any]] = [
        {
            "id": f"q{i}",
            "data_type": "qa",
            "question": ["Who?", "Why?"],
            "answers": [text[:9], "tea"],
            "docs": [text],
        }
        for i, text in enumerate(DOCUMENTS)
    ]
    told = {"id": "p", "data_type": "paraphrase", "question": [""]}
    return [*asked, {**told, "answers": [DOCUMENTS[1]], "docs": [DOCUMENTS[0]]}]


def learned(out: Path) -> dict[str, Tensor]:
    """What a training's state holds."""
    return load_file(out / "state" / "learned")


def steps(out: Path) -> list[Event]:
    """The steps of a training that stand, in their order."""
    return [event for event in standing(events(out)) if "number" in event]
