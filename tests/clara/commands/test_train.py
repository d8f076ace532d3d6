from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from clara import cli
from clara.commands.train import Request, following, request_of
from clara.commands.train_display import LINES, Display, clock
from clara.commands.train_options import CHOICES, choices_of
from clara.errors import Cancelled, InvalidTraining
from clara.model import checkpoint
from clara.settings import Settings
from clara.training.config import CONFIGS, EndToEndConfig, LatentsConfig, StageConfig
from clara.training.launch import launch
from clara.training.plan import Plan
from clara.training.progress import Progress, Trained
from clara.training.records import Stage
from tests.clara.training.files import QA, write
from tests.tiny import tiny_base

Ask = Callable[..., Request]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data.jsonl", [QA])


@pytest.fixture
def ask(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What the options of a stage ask for."""
    seen: list[Request] = []

    def run(request: Request, *_: Any, **__: Any) -> None:
        seen.append(request)

    monkeypatch.setattr("clara.commands.train.train", run)
    monkeypatch.setattr(cli.training, "settings", lambda: Settings(home=tmp_path))

    def go(stage: int, *options: str) -> Request:
        start = ["--base", "base"] if stage == 1 else ["--checkpoint", str(tmp_path / "kept")]
        argv = ["train", f"stage{stage}", "--data", str(data), "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(cli.app, [*argv, *start, *options])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return seen.pop()

    return go


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_without_options_a_stage_is_as_published(ask: Ask, stage: int) -> None:
    found = ask(stage).plan.config
    assert found == CONFIGS[Stage(stage)]()
    if isinstance(found, EndToEndConfig):
        assert found.optimiser.learning_rate == 5e-6


def test_the_parameters_of_the_published_scripts_go_where_they_belong(ask: Ask) -> None:
    options = "--compress-rate 16 --doc-max-length 128 --learning-rate 2e-4 --max-len 512 "
    options += "--no-mse-loss --no-qa-loss --do-eval-gen --lora-r 8 --batch-size 4 --minutes 1.5 "
    options += "--micro-tokens 99 --epochs 2.5 --max-steps 7 --seed 3 --dtype float32 --recompute "
    options += "--patience 2 --score-every 5 --save-every 6 --device cpu --processes 2 --limit 9"
    request = ask(1, *options.split(), "--exclude-source", "a", "--exclude-source", "b")
    plan, found = request.plan, request.plan.config.as_dict()
    assert found["latents"]["compr_rate"] == 16
    assert found["latents"]["doc_max_length"] == 128
    optimiser = {"learning_rate": 2e-4, "batch_size": 4, "micro_tokens": 99, "recompute": True}
    assert optimiser.items() <= found["optimiser"].items()
    length = {"epochs": 2.5, "max_steps": 7, "minutes": 1.5, "patience": 2, "do_eval_gen": True}
    length |= {"score_every": 5, "save_every": 6}
    assert length.items() <= found["length"].items()
    rest = {"max_len": 512, "mse_loss": False, "qa_loss": False, "lora_r": 8, "seed": 3}
    assert rest.items() <= found.items()
    assert (plan.limit, plan.exclude_sources, plan.device) == (9, ("a", "b"), "cpu")
    assert request.processes == 2


def test_both_names_of_the_rate_and_of_the_checkpoint_are_known(ask: Ask) -> None:
    assert ask(1, "--compr-rate", "8").plan.config.latents.compr_rate == 8
    assert ask(2, "--pretrain-checkpoint", "other").plan.checkpoint == "other"


def test_pooled_latents_have_several_rates(ask: Ask) -> None:
    found = ask(1, "--kind", "pooled", "--rates", "4,16", "--compr-rate", "4", "--contextual")
    wanted = LatentsConfig(kind="pooled", compr_rate=4, rates=(4, 16), contextual=True)
    assert found.plan.config.latents == wanted


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_choice_names_a_field(stage: int) -> None:
    for choice in choices_of(Stage(stage)):
        found: Any = CONFIGS[Stage(stage)]()
        for name in choice.path.split("."):
            found = getattr(found, name)
    assert len({choice.name for choice in CHOICES}) == len(CHOICES)


def test_options_go_before_a_file_and_assignments_before_options(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    length = {"max_steps": 1, "save_every": 2, "score_every": 3}
    path.write_text(json.dumps({"length": length, "lora_r": 3}))
    options = ["--max-steps", "5", "--save-every", "6", "--set", "length.max_steps=9"]
    found = ask(1, "--config", str(path), *options, "--set", "dtype=float32").plan.config
    kept = (found.length.max_steps, found.length.save_every, found.length.score_every)
    assert kept == (9, 6, 3)
    assert (found.lora_r, found.dtype) == (3, "float32")


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_whole_configuration_comes_back(ask: Ask, tmp_path: Path, stage: int) -> None:
    made: StageConfig = CONFIGS[Stage(stage)](seed=8)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(made.as_dict()))
    assert ask(stage, "--config", str(path)).plan.config == made
    with pytest.raises(InvalidTraining, match=f"configures stage {stage}, not"):
        ask(stage % 3 + 1, "--config", str(path))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--set", "optimiser.warmpu=1"], "optimiser.warmpu: Unexpected keyword"),
        (["--set", "lora_r"], "'lora_r' is no assignment"),
        (["--set", "lora_r=4", "--set", "lora_r.more=1"], "lies below lora_r"),
        (["--learning-rate", "-1"], "optimiser.learning_rate: Input should be greater than 0"),
        (["--rates", "four"], "--rates is 'four'; whole numbers are expected"),
    ],
)
def test_wrong_options_are_told_by_field(ask: Ask, options: list[str], told: str) -> None:
    with pytest.raises(InvalidTraining, match=told):
        ask(1, *options)


def test_a_rate_that_the_checkpoint_does_not_have_is_refused(ask: Ask, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    config = {"compr_rate": 16, "rates": [4, 16], "doc_max_length": 256, "kind": "pooled"}
    (kept / "manifest.json").write_text(json.dumps({"config": config}))
    assert ask(2, "--compr-rate", "4").plan.checkpoint == str(kept)
    with pytest.raises(InvalidTraining, match=r"compr_rate 32 is asked for; .* has 4, 16"):
        ask(2, "--compr-rate", "32")
    with pytest.raises(InvalidTraining, match="kind memory is asked for"):
        ask(2, "--kind", "memory")


def test_a_later_stage_needs_a_checkpoint(tmp_path: Path, data: Path) -> None:
    plain = {choice.name: None for choice in choices_of(Stage.INSTRUCTION)}
    given = {"data": [data], "out": tmp_path, "checkpoint": "", "base": "base", "config": None}
    lists: dict[str, Any] = {"dev": [], "set_": [], "exclude_source": []}
    rest = {"limit": None, "dev_limit": 1, "name": "", "device": "cpu"}
    with pytest.raises(InvalidTraining, match="goes on from a checkpoint, and none is given"):
        request_of(Stage.INSTRUCTION, {**plain, **given, **lists, **rest}, Settings(home=tmp_path))


def test_a_stage_is_trained_watched_and_followed_by_the_next(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.training, "settings", lambda: Settings(home=tmp_path))
    console = Console(width=300, force_terminal=False)
    monkeypatch.setattr(cli.training, "console", console)
    base, out = tiny_base(tmp_path / "base"), tmp_path / "one"
    argv = ["train", "stage1", "--data", str(data), "--dev", str(data), "--out", str(out)]
    argv += ["--base", str(base), "--compr-rate", "4", "--doc-max-length", "32", "--lora-r", "2"]
    argv += ["--max-steps", "2", "--epochs", "9", "--batch-size", "1", "--device", "cpu"]
    argv += ["--in-process", "--dtype", "float32", "--score-every", "2", "--max-len", "256"]
    with console.capture() as captured:
        done = CliRunner().invoke(cli.app, argv, catch_exceptions=False)
    told = captured.get()
    assert done.exit_code == 0
    assert "begins: 2 steps, 1 records, dev 1, 1 process on cpu, float32" in told
    assert "step 1/2  loss" in told
    assert "the best so far" in told
    best = out / "checkpoints" / "best"
    assert f"best checkpoint: {best} (step 2, " in told
    assert f"next: clara train stage2 --data FILE.jsonl --checkpoint {best} --base {base}" in told
    assert checkpoint.load(best).trained
    with console.capture() as captured:
        CliRunner().invoke(cli.app, ["train", "curves", str(out)], catch_exceptions=False)
    assert captured.get().startswith("step 2 of 2, loss ")


def test_a_cancelled_training_has_its_own_status(
    ask: Ask, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: Any, **__: Any) -> None:
        raise Cancelled("after step 3", remedy="Start it again")

    monkeypatch.setattr("clara.commands.train.train", cancelled)
    argv = ["train", "stage1", "--data", str(data), "--out", str(tmp_path), "--base", "b"]
    done = CliRunner().invoke(cli.app, argv)
    assert done.exit_code == 130
    assert "after step 3. Start it again" in done.stderr


def test_processes_and_a_configuration_reach_the_launcher(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def fake(plan: Plan, **given: Any) -> Trained:
        seen.update(given)
        return Trained(plan.out, plan.out, Progress())

    assert callable(launch)
    monkeypatch.setattr("clara.training.launch.launch", fake)
    monkeypatch.setattr(cli.training, "settings", lambda: Settings(home=tmp_path, torch_threads=3))
    hosts = tmp_path / "hosts.yaml"
    hosts.touch()
    argv = ["train", "stage1", "--data", str(data), "--out", str(tmp_path / "out"), "--base", "b"]
    CliRunner().invoke(
        cli.app,
        [*argv, "--processes", "4", "--accelerate-config", str(hosts)],
        catch_exceptions=False,
    )
    assert (seen["processes"], seen["accelerate_config"], seen["threads"]) == (4, hosts, 3)


def test_curves_are_written_for_programs_and_for_people(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    files = [tmp_path / "curves.json", tmp_path / "curves.png"]
    argv = ["train", "curves", str(tmp_path), "--json", str(files[0]), "--png", str(files[1])]
    assert CliRunner().invoke(cli.app, argv).exit_code == 0
    assert json.loads(files[0].read_text())["steps"] == []
    assert files[1].exists()


def test_after_the_last_stage_comes_the_evaluation(tmp_path: Path) -> None:
    plan = Plan(EndToEndConfig(), (), tmp_path / "three", checkpoint="two")
    best = tmp_path / "best"
    found = following(plan, Trained(tmp_path / "last", best, Progress()))
    assert found == ["clara", "evaluate", "FILE.jsonl", "--checkpoint", str(best)]


def test_plain_lines_are_few_however_many_steps_there_are() -> None:
    console = Console(width=200, force_terminal=False)
    display = Display(console)
    with console.capture() as captured, display:
        display({"begun": 0, "of": 5000, "records": 1, "dev": 0, "processes": 1}
                | {"device": "cpu", "dtype": "float32"})  # fmt: skip
        for number in range(1, 5001):
            places = {"places": 10, "seconds": 0.1, "at": number / 10}
            display({"number": number, "loss": 1.0, "share": number / 5000, **places})
    lines = captured.get().splitlines()
    assert LINES <= len(lines) <= LINES + 2
    assert lines[-1].startswith("step 5000/5000  loss 1.000  100 tokens/s  0:00 left")


def test_a_terminal_shows_one_line_and_every_score() -> None:
    console = Console(width=200, force_terminal=True)
    with console.capture() as captured, Display(console) as display:
        display({"number": 1, "loss": 1.0, "share": 0.5, "places": 1, "seconds": 1, "at": 3600})
        scores = {"score": 2.0, "wrong": 3.0, "cover_em": 0.5, "best": True}
        display({"scored": 1, **scores})
    assert "1:00:00 left" in captured.get()
    assert "step 1: dev 2.000 nats per token" in captured.get()
    assert "cover-EM 50.0 %, the best so far" in captured.get()


def test_a_time_is_hours_minutes_and_seconds() -> None:
    assert [clock(s) for s in (None, 5, 65, 3600.4)] == ["?", "0:05", "1:05", "1:00:00"]
