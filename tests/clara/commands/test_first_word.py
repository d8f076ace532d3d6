from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from clara.commands.first_word import or_command

app = typer.Typer(add_completion=False)
other_app = typer.Typer(add_completion=False)


@app.callback()
def main() -> None:
    """So that commands are called by their names."""


@other_app.command("search")
def search(data: Annotated[str, typer.Option()], limit: Annotated[int, typer.Option()] = 0) -> None:
    """Look for words."""
    typer.echo(f"search {data} {limit}")


@app.command(cls=or_command(search=other_app))
def measure(
    files: Annotated[list[Path] | None, typer.Argument(exists=True)] = None,
    mode: Annotated[str, typer.Option()] = "plain",
) -> None:
    """Read files; `measure search` looks for words."""
    typer.echo(f"files {[str(path) for path in files or []]} {mode}")


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["measure", *words])
    return done.output.strip() if done.exit_code == 0 else f"{done.exit_code}: {done.output}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "search"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "files [] plain"),
        (["a.jsonl"], "files ['a.jsonl'] plain"),
        (["a.jsonl", "--mode", "text"], "files ['a.jsonl'] text"),
        (["--mode", "text", "a.jsonl"], "files ['a.jsonl'] text"),
        (["search", "--data", "x"], "search x 0"),
        (["search", "--limit", "3", "--data", "x"], "search x 3"),
        # a file that is called like the command
        (["./search"], "files ['search'] plain"),
        (["--", "search"], "files ['search'] plain"),
        (["a.jsonl", "search"], "files ['a.jsonl', 'search'] plain"),
        (["--mode", "text", "search"], "files ['search'] text"),
    ],
)
def test_the_first_word_alone_decides(here: Path, words: list[str], found: str) -> None:
    assert run(*words) == found


def test_each_speaks_of_its_own_usage(here: Path) -> None:
    assert "measure [OPTIONS]" in run("--help")
    assert "measure search [OPTIONS]" in run("search", "--help")
    assert "--mode" in run("search", "--mode", "text")  # not one of that command
    assert run("search", "--mode", "text").startswith("2:")
    assert "'--data'" in run("search")
