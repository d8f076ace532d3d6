"""Bases that cannot serve, beyond chat template, bos and unreadable weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from clara.errors import InvalidCheckpoint, ModelMissing
from clara.model.checkpoint import Checkpoint, untrained
from clara.model.fit import check_fits
from clara.model.models import Models
from clara.model.rows import whole_rows

Opened = Callable[..., Models]


@pytest.fixture
def own_base(base: Path, tmp_path: Path) -> Path:
    """A copy of the base, for a test to damage."""
    return Path(shutil.copytree(base, tmp_path / "base"))


def open_untrained(base: Path, opened: Opened) -> Models:
    return opened(untrained(base, compr_rate=4, doc_max_length=32))


def test_an_empty_folder_is_no_base(tmp_path: Path, opened: Opened) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"has no .safetensors file"):
        open_untrained(tmp_path, opened)


def test_no_name_is_not_the_current_folder(trained: Checkpoint, opened: Opened) -> None:
    with pytest.raises(ModelMissing, match="no model at ''"):
        opened(replace(trained, config=replace(trained.config, base="")))


@pytest.mark.parametrize("content", [None, b"{", b"[]"])
def test_a_base_without_a_readable_config_is_refused(
    own_base: Path, opened: Opened, content: bytes | None
) -> None:
    path = own_base / "config.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=r"config.json") as caught:
        open_untrained(own_base, opened)
    assert caught.value.field == "config.json"


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_base_without_a_whole_tokenizer_is_refused(
    own_base: Path, opened: Opened, damage: str
) -> None:
    path = own_base / "tokenizer.json"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidCheckpoint, match="no tokenizer that can be loaded") as caught:
        open_untrained(own_base, opened)
    assert caught.value.field == "tokenizer.json"


def test_a_base_with_gaps_is_not_filled_with_random_numbers(own_base: Path, opened: Opened) -> None:
    path = own_base / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    lost = r"lacks 1 tensors, 'model.layers.1.mlp.up_proj.weight' first"
    with pytest.raises(InvalidCheckpoint, match=lost):
        open_untrained(own_base, opened)


def test_a_tokenizer_with_more_tokens_than_the_base_has_rows_is_refused(
    own_base: Path, base: Path, opened: Opened, trained: Checkpoint
) -> None:
    path, rows = own_base / "model.safetensors", 390
    tensors = load_file(path)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:rows].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((own_base / "config.json").read_text()) | {"vocab_size": rows}
    (own_base / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidCheckpoint, match="has 390 rows for the 400 tokens"):
        open_untrained(own_base, opened)
    with pytest.raises(InvalidCheckpoint, match="has 390 rows for the 400 tokens"):
        whole_rows(trained, own_base)


def test_a_base_of_an_unknown_kind_is_refused_before_its_weights_are_read(
    own_base: Path, trained: Checkpoint
) -> None:
    config = json.loads((own_base / "config.json").read_text()) | {"model_type": "nothing-known"}
    (own_base / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidCheckpoint, match="nothing-known"):
        check_fits(trained, own_base)


@pytest.mark.parametrize("shards", [{}, {"model.safetensors": b"cut"}], ids=["none", "cut"])
def test_rows_of_a_base_without_readable_weights_are_not_made_up(
    own_base: Path, trained: Checkpoint, shards: dict[str, bytes]
) -> None:
    (own_base / "model.safetensors").unlink()
    for name, content in shards.items():
        (own_base / name).write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=r"safetensors"):
        whole_rows(trained, own_base)
