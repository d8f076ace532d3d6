"""docs/training.md and the training scripts tell the truth about the commands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from clara.cli import app
from clara.commands.train_options import choices_of
from clara.training.config import CONFIGS
from clara.training.records import Stage
from clara.training.rules import parse

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
CLARA: Any = typer.main.get_command(app)
SCRIPTS = {
    1: "scripts/train_pretraining.sh",
    2: "scripts/train_instruction_tuning.sh",
    3: "scripts/train_stage_end_to_end.sh",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def lines() -> list[str]:
    """Command lines, those that go on behind a backslash joined."""
    text = "".join(blocks("sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


def command_of(argv: Sequence[str]) -> tuple[Any, list[str]]:
    """The command a line names, and what is left of the line."""
    found, rest = CLARA, list(argv[1:])
    while hasattr(found, "commands"):
        found = found.commands[rest.pop(0)]
    return found, rest


def read(argv: Sequence[str], folder: Path) -> Mapping[str, Any]:
    """What a command makes of its options; files it wants to exist are made."""
    command, rest = command_of(argv)
    for word in rest:
        if re.search(r"\.(jsonl|json|yaml)$", word) and not Path(word).is_absolute():
            (folder / word).touch()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        (folder / "runs" / "stage1").mkdir(parents=True)
        (folder / "models" / "base").mkdir(parents=True)
        context: click.Context = command.make_context(argv[1], rest)
    return context.params


@pytest.mark.parametrize("line", [line for line in lines() if line.startswith("clara ")])
def test_every_command_of_the_page_is_understood(line: str, tmp_path: Path) -> None:
    assert read(shlex.split(line, comments=True), tmp_path) is not None


def flags_of(command: Any) -> Iterator[str]:
    """Options of a command and of those below it."""
    yield from (flag for param in command.params for flag in param.opts)
    for below in getattr(command, "commands", {}).values():
        yield from flags_of(below)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--[a-z-]+)", PAGE))))
def test_every_option_of_the_page_exists(option: str) -> None:
    assert option in set(flags_of(CLARA))


@pytest.mark.parametrize("row", re.findall(r"^\| `--([a-z-]+)`.*?\|(.+)\|$", PAGE, re.MULTILINE))
def test_the_defaults_of_the_page_are_those_of_the_stages(row: tuple[str, str]) -> None:
    option, cells = row[0].replace("-", "_"), [cell.strip() for cell in row[1].split("|")]
    for stage, cell in zip(Stage, cells, strict=True):
        choices = {choice.name: choice.path for choice in choices_of(stage)}
        assert (option in choices) == bool(cell)
        if not cell or cell == "the checkpoint's":
            continue
        found: Any = CONFIGS[stage]()
        for name in choices[option].split("."):
            found = getattr(found, name)
        told = {"on": True, "off": False}.get(cell)
        assert found == (told if told is not None else type(found)(cell))


@pytest.mark.parametrize(("record", "stage"), list(zip(blocks("json"), [1, 1, 2, 3], strict=True)))
def test_every_record_of_the_page_is_one_of_its_stage(record: str, stage: int) -> None:
    found = parse(json.loads(record), Stage(stage), line=1, name="page", generation_top_k=5)
    assert not isinstance(found, list), found


@pytest.mark.parametrize("line", [line for line in lines() if "scripts/" in line])
def test_every_script_of_the_page_runs_a_command_that_is_understood(
    line: str, tmp_path: Path
) -> None:
    words = shlex.split(line)
    given = dict(word.split("=", 1) for word in words if "=" in word)
    at = next(i for i, word in enumerate(words) if word.startswith("scripts/"))
    argv = run_script(words[at], tmp_path, *words[at + 1 :], **given)
    assert read(argv, tmp_path)["do_eval_gen"] is True


def run_script(script: str, folder: Path, *options: str, **given: str) -> list[str]:
    """The command a script runs, from any folder."""
    stand_in = folder / "stand-in"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" clara "$@"\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / script), *options],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "CLARA": str(stand_in), **given},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_script_has_the_defaults_of_its_stage(stage: int, tmp_path: Path) -> None:
    given = {"DATA": "a b.jsonl", "OUT": "out", "PRETRAIN_CHECKPOINT": "before"}
    found = read(run_script(SCRIPTS[stage], tmp_path, **given), tmp_path)
    assert (found["data"], found["checkpoint"]) == ([Path("a b.jsonl")], "before")
    assert found["processes"] is None
    for choice in choices_of(Stage(stage)):
        value: Any = CONFIGS[Stage(stage)]()
        for name in choice.path.split("."):
            value = getattr(value, name)
        if found[choice.name] is not None and choice.name != "do_eval_gen":
            assert found[choice.name] == value, choice.name


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_variables_of_a_script_become_options(stage: int, tmp_path: Path) -> None:
    given = {"DATA": "a.jsonl", "OUT": "out", "PRETRAIN_CHECKPOINT": "before", "DEV": "d.jsonl"}
    given |= {"LEARNING_RATE": "0.5", "MAX_LEN": "99", "DO_EVAL_GEN": "false", "BASE": "b"}
    given |= {"PROCESSES": "4", "BATCH_SIZE": "7", "EPOCHS": "2", "ACCELERATE_CONFIG": "a.yaml"}
    argv = run_script(SCRIPTS[stage], tmp_path, "--lora-r", "8", "--base", "other", **given)
    found = read(argv, tmp_path)
    wanted = {"learning_rate": 0.5, "max_len": 99, "do_eval_gen": False, "processes": 4}
    wanted |= {"batch_size": 7, "epochs": 2.0, "lora_r": 8, "base": "other"}
    assert {name: found[name] for name in wanted} == wanted
    assert found["dev"] == [Path("d.jsonl")]


@pytest.mark.parametrize("script", SCRIPTS.values())
def test_a_script_says_what_it_lacks(script: str, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_script(script, tmp_path)
    assert "DATA: the training records" in caught.value.stderr
