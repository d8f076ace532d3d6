"""docs/search.md tells the truth about commands, requests and settings."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from api import filters, schemas
from api.app import create_app
from clara.cli import app
from clara.commands.search import options
from clara.filters import MAX_FILTERS, MAX_VALUES, from_json
from clara.retrieval.hybrid import AHEAD
from clara.retrieval.resting import REST_S
from clara.settings import Settings
from clara.types import Fate

PAGE = (Path(__file__).parent.parent / "docs" / "search.md").read_text(encoding="utf-8")
CLARA: Any = typer.main.get_command(app)


def blocks(language: str) -> str:
    return "".join(re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL))


@pytest.mark.parametrize("line", blocks("sh").splitlines())
def test_every_command_is_one(line: str) -> None:
    _, name, *words = shlex.split(line)
    command = CLARA.commands[name]
    with click.Context(command) as context:
        command.parse_args(context, list(words))
    given = context.params
    if "filters" in given:
        options(top_k=None, filters=given["filters"] or [], fusion=None)


def test_the_request_is_accepted() -> None:
    body = schemas.NewSearch.model_validate(json.loads(blocks("json")))
    assert len(from_json(filters.checked(body.filters, "/filters"))) == 4


def test_every_fate_is_explained_and_no_other() -> None:
    told = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert told == [fate.value for fate in Fate]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"CLARA_([A-Z0-9_]+)", PAGE))))
def test_every_setting_exists(name: str) -> None:
    assert name.lower() in Settings.model_fields


def test_every_address_exists() -> None:
    paths = create_app(Settings(_env_file=None, database_url="postgresql://x")).openapi()["paths"]
    shapes = {re.sub(r"{\w+}", "{}", path) for path in paths}
    for path in re.findall(r"(?:GET|POST) (/v1/[\w/{}]+)", PAGE):
        assert re.sub(r"{\w+}", "{}", path) in shapes, path


def test_the_numbers_are_those_of_the_code() -> None:
    config = Settings(_env_file=None)
    assert (
        f"BM25 finds {config.bm25_top_k} passages and the dense index {config.dense_top_k}" in PAGE
    )
    assert f"`CLARA_MAX_CANDIDATES` ({config.max_candidates})" in PAGE
    assert f"At most {MAX_FILTERS} filters, {MAX_VALUES} values" in PAGE
    assert f"{AHEAD[0]} and then {AHEAD[1]} times" in PAGE
    assert f"every {REST_S:.0f} seconds" in PAGE
