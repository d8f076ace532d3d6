"""The documents tell the truth about the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from clara.cli import app
from clara.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(of: typer.Typer) -> list[str]:
    return [info.name or info.callback.__name__ for info in of.registered_commands if info.callback]


@pytest.mark.parametrize("command", commands(app))
def test_every_command_is_in_the_readme(command: str) -> None:
    assert re.search(rf"\b{command}\b", README)


@pytest.mark.parametrize("target", re.findall(r"make ([a-z]+)", README))
def test_every_make_target_the_readme_names_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_path_in_the_readmes_tree_exists() -> None:
    tree = README.split("## What is where")[1].split("```")[1]
    folder = ROOT
    for line in tree.splitlines()[1:]:
        names = re.match(r"(\s*)((?:[\w.-]+/?(?:\s|$))+)", line)
        if not names:
            continue
        first, *others = names[2].split()
        if not names[1]:
            folder = ROOT / first if first.endswith("/") else ROOT
            assert (ROOT / first).exists(), first
        else:
            assert (folder / first).exists(), first
            assert all((folder / name).exists() for name in others if "." in name), line


@pytest.mark.parametrize("name", sorted(set(re.findall(r"CLARA_[A-Z_]+", README))))
def test_every_setting_the_readme_names_exists(name: str) -> None:
    assert name.removeprefix("CLARA_").lower() in Settings.model_fields


@pytest.mark.parametrize(
    "row",
    sorted(set(re.findall(r"\(BENCHMARKS\.md, ([a-z\s]+)\)", (ROOT / "DECISIONS.md").read_text()))),
)
def test_every_figure_a_decision_rests_on_has_its_section(row: str) -> None:
    benchmarks = (ROOT / "BENCHMARKS.md").read_text().lower()
    assert f"## {' '.join(row.split())}" in benchmarks
