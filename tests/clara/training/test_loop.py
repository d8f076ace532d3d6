from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from clara.errors import Cancelled, InvalidTraining, OutOfMemory, TrainingDiverged
from clara.training import state
from clara.training.config import OptimiserConfig, StageConfig, from_dict
from clara.training.log import Log
from clara.training.loop import Hooks, Loop, Step
from clara.training.order import Order
from clara.training.probe import Probe
from clara.training.schedule import rate_at
from clara.training.state import Progress
from tests.clara.training.conftest import Begun, config, readings

Make = Callable[..., Loop]


@pytest.fixture
def make(begun: Begun, tmp_path: Path) -> Make:
    """A loop on tiny records, with a folder that a second one can go on in."""

    def run(stage: StageConfig, *, out: str = "out", **hooks: Any) -> Loop:
        trainee, objective = begun(stage)
        probe = Probe(trainee, objective, readings()[:3], seed=0)
        book = Log(tmp_path / out)
        (tmp_path / out).mkdir(exist_ok=True)
        chosen: dict[str, Any] = {
            "on_step": book.step,
            "score": probe.scores,
            "on_score": lambda *_: None,
            "stopped": lambda: False,
            **hooks,
        }
        accelerator = Accelerator(cpu=True)
        return Loop(
            trainee,
            objective,
            readings(),
            stage,
            out=tmp_path / out,
            accelerator=accelerator,
            hooks=Hooks(**chosen),
        )

    return run


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 99))
def test_every_epoch_has_every_record_once(records: int, batch: int, seed: int) -> None:
    order = Order(records, batch, seed)
    steps = order.steps(3)
    seen = [at for number in range(steps) for at in order.step(number)]
    for epoch in range(3):
        part = seen[epoch * records : (epoch + 1) * records]
        assert sorted(part) == list(range(records))
    assert steps == -(-3 * records // batch)


@given(st.floats(0, 1), st.sampled_from(["cosine", "constant"]), st.floats(0, 0.5))
def test_a_learning_rate_rises_then_stays_within_its_bounds(
    share: float, schedule: str, warmup: float
) -> None:
    chosen = OptimiserConfig(learning_rate=0.5, schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    found = rate_at(share, chosen)
    assert 0 <= found <= 0.5
    if share >= warmup:
        assert found >= (0.05 if schedule == "cosine" else 0.5) - 1e-12


def test_training_lowers_the_loss_on_what_it_reads(make: Make, tmp_path: Path) -> None:
    loop = make(config(1, length={"max_steps": 25}, optimiser={"batch_size": 7}))
    loop.run()
    steps = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [entry["number"] for entry in steps] == list(range(1, 26))
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]


@pytest.mark.parametrize("kind", ["memory", "pooled"])
def test_a_training_cut_off_goes_on_as_if_it_had_not_been(make: Make, kind: str) -> None:
    whole = make(config(1, kind, dropout=0.1), out="whole")
    whole.run()
    first = make(config(1, kind, dropout=0.1), out="parts", stopped=_after(3))
    with pytest.raises(Cancelled):
        first.run()
    assert first.progress.step == 3
    second = make(config(1, kind, dropout=0.1), out="parts")
    assert second.progress.step == 3
    second.run()
    for name, parameter in whole.learned.items():
        assert torch.allclose(parameter, second.learned[name], atol=1e-7), name


def test_a_killed_training_loses_what_came_after_its_last_state(make: Make) -> None:
    stage = config(1, length={"save_every": 2})

    def on_step(step: Step, progress: Progress) -> None:
        if step.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(stage, on_step=on_step).run()
    again = make(stage)
    assert again.progress.step == 2
    again.run()
    fresh = make(stage, out="other")
    fresh.run()
    for name, parameter in fresh.learned.items():
        assert torch.allclose(parameter, again.learned[name], atol=1e-7), name


def test_a_loss_that_is_no_number_stops_and_names_the_records(make: Make) -> None:
    loop = make(config(1))
    with torch.no_grad():
        next(iter(loop.learned.values())).fill_(torch.inf)
    with pytest.raises(TrainingDiverged, match=r"step 1 has loss .* on records q\d|p"):
        loop.run()
    assert loop.progress.step == 0


def test_a_full_device_is_a_named_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make(config(1))

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "_wrapped", full)
    with pytest.raises(OutOfMemory, match="up to 4096 token places"):
        loop.run()


def test_it_ends_when_the_dev_score_gets_no_better(make: Make) -> None:
    scores = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    loop = make(
        config(1, length={"score_every": 1, "patience": 2, "max_steps": 50}),
        score=lambda: {"score": next(scores)},
    )
    progress = loop.run()
    assert (progress.step, progress.best, progress.best_step) == (4, 2.0, 2)


def test_time_can_end_it(make: Make) -> None:
    loop = make(config(1, length={"max_steps": 1000, "minutes": 1e-4}))
    assert loop.run().step < 1000
    assert loop.share == 1.0


def test_dev_scores_tell_right_from_wrong_latents_once_something_is_learned(make: Make) -> None:
    found: list[dict[str, float]] = []

    def told(scores: Any, _best: bool, _progress: Progress) -> None:
        found.append(dict(scores))

    make(
        config(1, length={"max_steps": 60, "score_every": 60}, optimiser={"batch_size": 7}),
        on_score=told,
    ).run()
    assert found[0]["score"] == found[0]["answer"]
    assert found[0]["wrong"] > found[0]["score"] + 0.1


def test_the_state_of_another_training_is_refused(make: Make) -> None:
    make(config(1, length={"max_steps": 1})).run()
    with pytest.raises(InvalidTraining, match="made by a training of other parameters"):
        make(config(1, lora_r=3))


def test_a_state_killed_between_two_renames_is_found_again(make: Make, tmp_path: Path) -> None:
    make(config(1, length={"max_steps": 2})).run()
    (tmp_path / "out/state").rename(tmp_path / "out/.state.before")
    assert make(config(1)).progress.step == 2


def test_a_configuration_survives_json() -> None:
    for stage in (1, 2, 3):
        made = config(stage, "pooled")
        assert from_dict(json.loads(json.dumps(made.as_dict()))) == made


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stage": 4}, "stage is 4; known are 1, 2 and 3"),
        ({"stage": 1, "lora": 4}, "lora: Unexpected keyword argument"),
        ({"stage": 1, "optimiser": {"learning_rate": -1}}, "optimiser.learning_rate: Input should"),
        ({"stage": 2, "generation_top_k": "many"}, "generation_top_k: .* got 'many'"),
    ],
)
def test_a_wrong_configuration_is_told_by_field_and_value(change: Any, told: str) -> None:
    with pytest.raises(InvalidTraining, match=told):
        from_dict(change)


def test_the_length_alone_does_not_make_another_training(make: Make) -> None:
    stage = config(1, length={"max_steps": 2})
    make(stage).run()
    longer = make(replace(stage, length=replace(stage.length, max_steps=4)))
    assert longer.run().step == 4
    assert state.Progress().step == 0


def _after(steps: int) -> Callable[[], bool]:
    asked = iter(range(1000))
    return lambda: next(asked) >= steps
