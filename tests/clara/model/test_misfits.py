"""Sound checkpoints over a base, or at a rate, that they were not made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clara.errors import InvalidCheckpoint
from clara.model.checkpoint import Checkpoint, CheckpointConfig, load, save
from clara.model.models import Models
from tests.clara.model.conftest import RANK
from tests.tiny import HIDDEN, tiny_base

Opened = Callable[..., Models]
Tensors = Mapping[str, Tensor]


def test_a_rate_the_checkpoint_does_not_have_is_refused(
    trained: Checkpoint, opened: Opened
) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"rate 8 is none of those .* trained for: 4") as e:
        opened(trained, rate=8)
    assert e.value.field == "compr_rate"


def test_rows_that_name_nothing_in_a_base_are_refused(trained: Checkpoint, opened: Opened) -> None:
    rows = {**trained.rows, "norm": torch.zeros(11, HIDDEN)}
    with pytest.raises(InvalidCheckpoint, match="rows of 'norm'; known are embed and head"):
        opened(replace(trained, rows=rows))


def test_a_head_for_a_base_that_has_none_is_refused(
    trained: Checkpoint, opened: Opened, tmp_path: Path
) -> None:
    tied = tiny_base(tmp_path, tied=True)
    rows = {**trained.rows, "head": trained.rows["embed"]}
    with pytest.raises(InvalidCheckpoint, match="the base uses its embedding as head"):
        opened(replace(trained, rows=rows), base=tied)


# the pooled kind


def pooled(base: Path, adapters: Mapping[str, Tensors], **tensors: Tensor) -> Checkpoint:
    """A checkpoint of 4 and 8 tokens per row; `tensors` take the place of pooling weights."""
    config = CheckpointConfig(
        str(base),
        compr_rate=4,
        doc_max_length=32,
        lora_r=RANK,
        training_stage="stage1_2",
        kind="pooled",
        rates=(4, 8),
        different_mem_tokens=False,
    )
    vocabulary = 400 + config.added
    pooling = {
        "weights": torch.zeros(vocabulary),
        "gate": torch.zeros(HIDDEN),
        "order": torch.zeros(2, HIDDEN),
        **tensors,
    }
    kept = {role: adapters[role] for role in ("compressor", "generator")}
    return Checkpoint(
        config, kept, trained=True, name="tiny-pooled", pooling={"compressor": pooling}
    )


@pytest.fixture
def sound_pooled(base: Path, adapters: Mapping[str, Tensors]) -> Checkpoint:
    return pooled(base, adapters)


def test_a_pooled_checkpoint_without_its_pooling_file_is_refused(
    sound_pooled: Checkpoint, opened: Opened, tmp_path: Path
) -> None:
    folder = save(sound_pooled, tmp_path / "pooled")
    opened(load(folder))
    (folder / "pooling.safetensors").unlink()
    with pytest.raises(InvalidCheckpoint, match=r"has no pooling.safetensors") as caught:
        load(folder)
    assert caught.value.field == "pooling.safetensors"


def test_a_cut_pooling_file_is_refused(sound_pooled: Checkpoint, tmp_path: Path) -> None:
    path = save(sound_pooled, tmp_path / "pooled") / "pooling.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InvalidCheckpoint, match=r"pooling.safetensors cannot be read"):
        load(path.parent)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("weights", torch.zeros(400), r"pooling weights has shape \(400,\); the base needs \(404,"),
        ("weights", torch.zeros(404, 1), r"weights has shape \(404, 1\); the base needs \(404,\)"),
        ("gate", torch.zeros(64), r"pooling gate has shape \(64,\); the base needs \(32,\)"),
        ("order", torch.zeros(2, 64), r"pooling order has shape \(2, 64\); .* needs \(2, 32\)"),
    ],
    ids=["another vocabulary", "a column", "another width", "waves of another width"],
)
def test_pooling_weights_for_another_base_are_refused(
    base: Path,
    adapters: Mapping[str, Tensors],
    opened: Opened,
    name: str,
    tensor: Tensor,
    message: str,
) -> None:
    with pytest.raises(InvalidCheckpoint, match=message) as caught:
        opened(pooled(base, adapters, **{name: tensor}))
    assert caught.value.field == f"compressor.pooling.{name}"


def test_pooling_weights_that_are_not_numbers_are_refused(
    base: Path, adapters: Mapping[str, Tensors], tmp_path: Path
) -> None:
    gate = torch.full((HIDDEN,), float("nan"))
    folder = save(pooled(base, adapters, gate=gate), tmp_path / "pooled")
    with pytest.raises(InvalidCheckpoint, match=r"compressor.pooling 'gate' holds values"):
        load(folder)


def test_every_rate_of_a_pooled_checkpoint_divides_its_length(sound_pooled: Checkpoint) -> None:
    with pytest.raises(InvalidCheckpoint, match="32 is not a multiple of compr_rate 5"):
        replace(sound_pooled.config, rates=(4, 5))


def test_a_rate_a_pooled_checkpoint_was_not_trained_for_is_refused(
    sound_pooled: Checkpoint, opened: Opened
) -> None:
    assert opened(sound_pooled, rate=8).rows == 4
    with pytest.raises(InvalidCheckpoint, match=r"rate 16 is none of .* trained for: 4, 8"):
        opened(sound_pooled, rate=16)
