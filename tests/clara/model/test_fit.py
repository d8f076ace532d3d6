from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clara.errors import CheckpointMismatch, InvalidCheckpoint
from clara.model.checkpoint import Checkpoint
from clara.model.fingerprints import base_hash
from clara.model.fit import check_fits, hash_of_base
from tests.tiny import HIDDEN, tiny_base


def test_a_checkpoint_fits_its_base_tensor_by_tensor(trained: Checkpoint, base: Path) -> None:
    assert check_fits(trained, base) == 3 * 2 * 14 + 1


def test_what_does_not_fit_is_named_without_loading_the_base(
    trained: Checkpoint, base: Path, tmp_path: Path
) -> None:
    own_base = Path(shutil.copytree(base, tmp_path / "base"))
    (own_base / "model.safetensors").unlink()
    part = {"model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(4, HIDDEN)}
    with pytest.raises(InvalidCheckpoint, match="the adapter lacks 27 tensors"):
        check_fits(replace(trained, adapters={"compressor": part}), own_base)
    with pytest.raises(InvalidCheckpoint, match=r"embed rows have shape \(11, 64\)"):
        check_fits(replace(trained, rows={"embed": torch.zeros(11, 64)}), own_base)


def test_the_hash_of_another_base_is_refused(
    trained: Checkpoint, base: Path, tmp_path: Path
) -> None:
    known = replace(trained, base_hash=base_hash(base))
    assert hash_of_base(known, base) == hash_of_base(trained, base) == base_hash(base)
    with pytest.raises(CheckpointMismatch, match="was trained on base") as caught:
        hash_of_base(known, tiny_base(tmp_path, seed=1))
    assert caught.value.field == "base"
