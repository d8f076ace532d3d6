from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clara.errors import InvalidCheckpoint
from clara.model.checkpoint import Checkpoint, load, save
from clara.model.fingerprints import fingerprint


@pytest.fixture
def folder(trained: Checkpoint, tmp_path: Path) -> Path:
    return save(replace(trained, base_hash="known", licence="MIT", notes=("one",)), tmp_path / "a")


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def test_a_manifest_carries_fingerprint_licence_and_notes(
    trained: Checkpoint, folder: Path
) -> None:
    found = manifest(folder)
    assert found["fingerprint"] == fingerprint(trained, "known", dtype=torch.float32)
    assert (found["licence"], found["notes"], found["base_hash"]) == ("MIT", ["one"], "known")
    assert load(folder).notes == ("one",)


def test_without_a_known_base_there_is_no_fingerprint(trained: Checkpoint, tmp_path: Path) -> None:
    assert manifest(save(trained, tmp_path / "b"))["fingerprint"] is None
    assert load(tmp_path / "b").base_hash is None


@pytest.mark.parametrize(
    "change",
    [
        {"doc_max_length": 64},
        {"compr_rate": 8, "rates": [8]},
        {"different_mem_tokens": False},
    ],
    ids=str,
)
def test_a_field_changed_by_hand_that_decides_latents_is_noticed(
    folder: Path, change: dict[str, object]
) -> None:
    content = manifest(folder)
    content["config"] |= change
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InvalidCheckpoint) as caught:
        load(folder)
    assert caught.value.field in ("fingerprint", "embed")


def test_another_base_written_in_by_hand_is_noticed(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest(folder) | {"base_hash": "other"}))
    with pytest.raises(InvalidCheckpoint, match="its manifest was written for") as caught:
        load(folder)
    assert caught.value.field == "fingerprint"


def test_a_manifest_of_before_fingerprints_still_loads(trained: Checkpoint, folder: Path) -> None:
    content = manifest(folder)
    for name in ("fingerprint", "notes"):
        del content[name]
    (folder / "manifest.json").write_text(json.dumps(content))
    assert load(folder).config == trained.config


def test_where_the_base_lies_is_no_part_of_the_fingerprint(folder: Path) -> None:
    content = manifest(folder)
    content["config"]["base"] = "/elsewhere"
    (folder / "manifest.json").write_text(json.dumps(content))
    assert load(folder).config.base == "/elsewhere"
    assert load(folder, base="there").config.base == "there"
