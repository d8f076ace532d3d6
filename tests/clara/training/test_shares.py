"""How often records are read as text, and at which rate."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from clara.errors import InvalidTraining
from clara.training.compression import Reading
from clara.training.config import InstructionConfig, from_dict
from clara.training.records import Record
from clara.training.stages import Objective
from tests.clara.training.conftest import (
    Begun,
    as_checkpoint,
    config,
    questions,
    readings,
    shaken,
)

TIMES = 400


def drawn(objective: Objective, record: Record) -> list[Reading]:
    found = (objective.example(record, Random(seed)) for seed in range(TIMES))  # noqa: S311
    return [example for example in found if isinstance(example, Reading)]


def objective_of(begun: Begun, stage: int, **changes: Any) -> Objective:
    if stage == 1:
        return begun(config(1, "pooled", **changes))[1]
    first, _ = begun(config(1, "pooled"))
    shaken(first)
    return begun(config(2, "pooled", **changes), as_checkpoint(first))[1]


@pytest.mark.parametrize("stage", [1, 2])
def test_the_share_that_was_asked_for_is_read_as_text(begun: Begun, stage: int) -> None:
    found = drawn(
        objective_of(begun, stage, text_share=0.3), (readings() if stage == 1 else questions())[0]
    )
    as_text = [example for example in found if not example.documents]
    assert 0.2 < len(as_text) / TIMES < 0.4
    assert len(found) == TIMES


def test_a_restatement_is_always_told_from_latents(begun: Begun) -> None:
    found = drawn(objective_of(begun, 1, text_share=0.9), readings()[-1])
    assert all(example.documents for example in found)


@pytest.mark.parametrize("stage", [1, 2])
def test_rates_are_drawn_by_their_weights(begun: Begun, stage: int) -> None:
    record = (readings() if stage == 1 else questions())[0]
    rates = Counter(e.rate for e in drawn(objective_of(begun, stage, rate_weights=[3, 1]), record))
    assert 0.65 < rates[4] / TIMES < 0.85
    only = drawn(objective_of(begun, stage, rate_weights=[0, 1]), record)
    assert {example.rate for example in only} == {16}
    alike = Counter(example.rate for example in drawn(objective_of(begun, stage), record))
    assert 0.4 < alike[4] / TIMES < 0.6


@pytest.mark.parametrize("weights", [[1], [1, 1, 1], [0, 0], [2, -1]])
def test_weights_that_do_not_fit_the_rates_are_refused(begun: Begun, weights: list[int]) -> None:
    with pytest.raises(InvalidTraining, match="rates 4, 16") as caught:
        objective_of(begun, 1, rate_weights=weights)
    assert caught.value.field == "rate_weights"


@pytest.mark.parametrize(("read", "share"), [("latents", 0.0), ("text", 1.0)])
def test_a_training_that_said_what_it_reads_in_the_earlier_way_goes_on(
    read: str, share: float
) -> None:
    found = from_dict({"stage": 2, "read": read})
    assert isinstance(found, InstructionConfig)
    assert found.text_share == share
    with pytest.raises(InvalidTraining, match="read"):
        from_dict({"stage": 2, "read": "pictures"})
