"""Imports point one way: api -> workers -> clara; and the light processes stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LAYERS = ["clara", "workers", "api"]  # each may import those to its left
ROOT = Path(__file__).parent.parent


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    for path in (ROOT / layer).rglob("*.py"):
        assert not above & {name.split(".")[0] for name in imported(path)}, path


@pytest.mark.parametrize("package", ["model", "retrieval"])
def test_models_and_stores_do_not_know_each_other(package: str) -> None:
    other = {"model": "clara.retrieval", "retrieval": "clara.model"}[package]
    for path in (ROOT / "clara" / package).rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith(other)], path


@pytest.mark.parametrize(
    "modules", ["api.app", "workers.app, workers.tasks, workers.ready", "clara.cli, clara.client"]
)
def test_processes_without_a_model_do_not_load_torch(modules: str) -> None:
    heavy = "{'torch', 'transformers', 'faiss'}"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
