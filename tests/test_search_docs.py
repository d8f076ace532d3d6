"""docs/search.md tells the truth about commands, requests and settings."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from api import filters, schemas
from api.app import create_app
from clara.cli import app
from clara.commands.search import options
from clara.evaluation.retrieval import Method
from clara.evaluation.retrieval_scores import CUTS, DEPTH
from clara.filters import MAX_FILTERS, MAX_VALUES, from_json
from clara.retrieval.blocks import block_bytes
from clara.retrieval.faiss_kinds import NUMBERS_PER_BYTE, Sizes
from clara.retrieval.hybrid import AHEAD
from clara.retrieval.resting import REST_S
from clara.settings import Settings
from clara.types import Fate, LatentForm, Rerank

PAGE = (Path(__file__).parent.parent / "docs" / "search.md").read_text(encoding="utf-8")
CLARA: Any = typer.main.get_command(app)


def blocks(language: str) -> str:
    return "".join(re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL))


@pytest.mark.parametrize("line", blocks("sh").splitlines())
def test_every_command_is_one(line: str) -> None:
    _, name, *words = shlex.split(line)
    given = CLARA.commands[name].make_context(name, list(words)).params
    if "filters" in given:
        options(top_k=None, filters=given["filters"] or [], fusion=None)


def test_the_request_is_accepted() -> None:
    body = schemas.NewSearch.model_validate(json.loads(blocks("json")))
    assert len(from_json(filters.checked(body.filters, "/filters"))) == 4


def test_every_fate_is_explained_and_no_other() -> None:
    told = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert told == [fate.value for fate in Fate]


def test_every_way_of_ranking_is_explained_and_no_other() -> None:
    told = re.findall(r"^\| (\w+) \| ", PAGE.split("## Filters")[0], re.MULTILINE)
    assert told == ["rerank", *(each.value for each in Rerank)]


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


def test_the_sizes_are_those_of_the_code() -> None:
    sizes = Sizes()
    assert f"up to {sizes.flat:,} every vector is compared; up to {sizes.hnsw:,} a graph" in PAGE
    assert f"on the GPU up to {sizes.gpu:,}" in PAGE
    assert f"a byte for {NUMBERS_PER_BYTE} numbers" in PAGE
    for rows, width in ((16, 576), (16, 4096), (2, 4096)):
        both = [1e6 * block_bytes(form, rows, width) / 1e9 for form in LatentForm]
        told = " / ".join(f"{size:.2g}" if size < 100 else f"{size:.0f}" for size in both)
        assert f"| Postgres | {told} |" in PAGE, told


def test_the_measures_are_those_of_the_code() -> None:
    words = " ".join(PAGE.split())
    *first, last = CUTS
    assert f"Recall at {', '.join(map(str, first))} and {last}, MRR and nDCG at {DEPTH}" in words
    told = re.findall(r"^\| ([\w+, ]+) \| ", PAGE.split("## Measuring it")[1], re.MULTILINE)
    assert ", ".join(told[1:]).split(", ") == [str(method) for method in Method]
