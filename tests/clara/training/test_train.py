from __future__ import annotations

import fcntl
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clara.errors import Cancelled, DiskFull, InvalidTraining, OutOfMemory, TrainingDiverged
from clara.model import checkpoint as checkpoints
from clara.model.models import load_models
from clara.training import losses, state
from clara.training.events import Event, events
from clara.training.loop import Step
from clara.training.plan import plan_from
from clara.training.train import train
from tests.clara.training.conftest import config
from tests.clara.training.files import FIVE, INSTRUCTION, write
from tests.clara.training.plans import MakePlan, learned, lines, make_plan, steps

__all__ = ["make_plan"]


def test_a_training_leaves_its_best_and_its_last_checkpoint(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    dev = {"dev": (write(tmp_path / "dev.jsonl", lines()[:2]),)}
    length = {"score_every": 2, "max_steps": 5, "do_eval_gen": True, "eval_gen_tokens": 2}
    found = train(make_plan(options=dev, length=length))
    assert found.progress.step == 5
    assert [entry["step"] for entry in found.progress.curve] == [2, 4, 5]
    assert {"score", "wrong", "cover_em", "f1"} <= set(found.progress.curve[0])
    best = min(found.progress.curve, key=lambda entry: entry["score"])
    assert (found.progress.best, found.progress.best_step) == (best["score"], best["step"])
    for folder in (found.best, found.last):
        models = load_models(checkpoints.load(folder), device="cpu", dtype=torch.float32)
        assert models.checkpoint.config.training_stage == "stage1"
        assert models.compressor.compress(["Tea."])[0].shape == (8, 32)
    assert (found.best.name, found.last.name) == ("best", "last")


def test_its_log_says_how_it_began_what_it_did_and_how_it_scored(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    told: list[Event] = []
    dev = {"dev": (write(tmp_path / "dev.jsonl", lines()[:2]),)}
    plan = make_plan(options=dev, length={"score_every": 2, "max_steps": 2})
    train(plan, on_event=told.append)
    assert told == events(plan.out)
    begun, first, second, scored = told
    assert (begun["begun"], begun["of"], begun["records"], begun["dev"]) == (0, 2, 7, 2)
    assert (first["number"], first["share"], second["share"]) == (1, 0.5, 1.0)
    assert (scored["scored"], scored["best"]) == (2, True)


def test_a_second_stage_notes_how_many_documents_it_reads(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    first = train(make_plan(length={"max_steps": 1}))
    record = INSTRUCTION | {"docs": FIVE[:2], "pos_index": [1]}
    data = write(tmp_path / "stage2.jsonl", [record])
    length = {"max_steps": 1, "score_every": 0}
    stage = config(2, latents={"compr_rate": 32, "doc_max_length": 256}, length=length)
    raw = {"config": stage.as_dict(), "data": [str(data)], "out": str(tmp_path / "two")}
    second = train(plan_from({**raw, "checkpoint": str(first.best), "device": "cpu"}))
    kept = checkpoints.load(second.last).config
    assert (kept.generation_top_k, kept.training_stage, kept.compr_rate) == (2, "stage1_2", 4)


def test_latents_that_the_checkpoint_does_not_make_are_refused(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    first = train(make_plan(length={"max_steps": 1}))
    again = make_plan("other", options={"checkpoint": str(first.last)}, latents={"compr_rate": 8})
    with pytest.raises(InvalidTraining, match="compr_rate 8 is asked for; out has 4"):
        train(again)


def test_a_full_disk_is_named_and_the_last_state_stands(make_plan: MakePlan) -> None:
    length = {"max_steps": 4, "save_every": 1}
    whole, plan = make_plan("whole", length=length), make_plan(length=length)
    train(whole)
    with pytest.raises(Cancelled):
        train(plan, stopped=lambda: (plan.out / "state").exists())
    before = learned(plan.out)
    with files_at_most(20_000), pytest.raises(DiskFull, match=r"File too large \(\d+ MB free\)"):
        train(plan)
    assert_equal(learned(plan.out), before)
    assert not list(plan.out.glob(".*.part"))
    assert train(plan).progress.step == 4
    assert_equal(learned(plan.out), learned(whole.out), within=1e-6)


def test_a_log_that_cannot_grow_is_a_full_disk(make_plan: MakePlan) -> None:
    plan = make_plan()
    plan.out.mkdir()
    (plan.out / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="No space left on device"):
        train(plan)


def test_a_device_without_memory_is_named_and_the_last_state_stands(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(length={"max_steps": 4, "save_every": 1})
    with monkeypatch.context() as patched:
        patched.setattr(losses, "answer_nll", _at_call(3, lambda _: torch.empty(2**55)))
        with pytest.raises(OutOfMemory, match="up to 4096 token places does not fit") as caught:
            train(plan)
    assert caught.value.limit == 4096
    done = len(steps(plan.out))
    assert 0 < done < 4
    assert train(plan).progress.step == 4
    assert [step["number"] for step in steps(plan.out)] == [1, 2, 3, 4]


def test_a_loss_that_is_no_number_leaves_what_was_learned_before_as_a_checkpoint(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(length={"save_every": 1}, optimiser={"batch_size": 7})
    monkeypatch.setattr(losses, "answer_nll", _at_call(3, lambda loss: loss * torch.inf))
    with pytest.raises(TrainingDiverged, match=r"step 3 has loss inf .* records .*q\d") as caught:
        train(plan)
    assert "q0" in str(caught.value)
    kept = checkpoints.load(plan.out / "checkpoints" / "last")
    assert kept.trained
    assert state.Progress(**_progress(plan.out)).step == 2


def test_a_cancelled_training_leaves_a_checkpoint(make_plan: MakePlan) -> None:
    plan, done = make_plan(), []

    def on_step(step: Step, *_: Any) -> None:
        done.append(step.number)

    with pytest.raises(Cancelled, match="cancelled after step 2"):
        train(plan, on_step=on_step, stopped=lambda: len(done) == 2)
    assert checkpoints.load(plan.out / "checkpoints" / "last").trained


def test_another_configuration_in_the_same_folder_is_refused_by_field(make_plan: MakePlan) -> None:
    train(make_plan(length={"max_steps": 1}))
    told = r"other config.optimiser.learning_rate \(0.01, not 0.5\)"
    with pytest.raises(InvalidTraining, match=told):
        train(make_plan(optimiser={"learning_rate": 0.5}))


def test_two_trainings_do_not_share_a_folder(make_plan: MakePlan) -> None:
    plan = make_plan()
    plan.out.mkdir()
    with (plan.out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InvalidTraining, match="another process trains in"):
            train(plan)
    assert not (plan.out / "config.json").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"qa_loss": False}, "none of the 6 records leaves anything to learn from"),
        ({"max_len": 16}, "none of the 6 records leaves anything to learn from"),
        ({"dev": "long"}, "none of the 1 dev records leaves anything to score"),
        ({"device": "cuda:1"}, "the first GPU it sees, not cuda:1"),
        ({"data": ()}, "no data is given"),
        ({"base": ""}, "no base model is given"),
    ],
)
def test_what_cannot_run_is_refused(
    make_plan: MakePlan, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    data = write(tmp_path / "questions.jsonl", lines()[:6])
    long = {**lines()[0], "question": ["Who? " * 200], "answers": ["I"]}
    options: dict[str, Any] = {"data": (data,)}
    options |= {key: change.pop(key) for key in ("device", "data", "base") if key in change}
    if change.pop("dev", None):
        options["dev"] = (write(tmp_path / "long.jsonl", [long]),)
        change = {"pairs_as": "single"}
    with pytest.raises(InvalidTraining, match=told):
        train(make_plan(options=options, **change))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_processor(make_plan: MakePlan) -> None:
    with pytest.raises(InvalidTraining, match="torch finds no GPU here"):
        train(make_plan(options={"device": "cuda"}))


def test_a_limit_counts_in_every_file(make_plan: MakePlan, tmp_path: Path) -> None:
    files = tuple(write(tmp_path / f"{name}.jsonl", lines()) for name in "ab")
    told: list[Event] = []
    options = {"data": files, "limit": 3, "dev": files, "dev_limit": 2}
    train(make_plan(options=options, length={"max_steps": 1}), on_event=told.append)
    assert (told[0]["records"], told[0]["dev"]) == (6, 4)


def _at_call(number: int, change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The answer's loss, changed from its n-th call on."""
    original, calls = losses.answer_nll, iter(range(1, 10_000))

    def run(*given: Any) -> Tensor:
        found = original(*given)
        return change(found) if next(calls) >= number else found

    return run


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """No file of this process grows over so many bytes: the system refuses, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_equal(
    found: dict[str, Tensor], wanted: dict[str, Tensor], *, within: float = 0.0
) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(found[name], tensor, atol=within, rtol=0), name


def _progress(out: Path) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads((out / "state" / "progress.json").read_text())
    return found
