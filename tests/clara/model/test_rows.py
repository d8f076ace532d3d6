from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clara.model.checkpoint import Checkpoint
from clara.model.models import backbone_of
from clara.model.rows import whole_rows
from tests.tiny import HIDDEN, tiny_base


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("different", [False, True])
def test_rows_made_from_files_are_those_of_the_loaded_model(
    trained: Checkpoint, tmp_path: Path, tied: bool, different: bool
) -> None:
    base = tiny_base(tmp_path / "base", tied=tied)
    config = replace(trained.config, different_mem_tokens=different, kbtc_training=True)
    added = torch.randn((config.added, HIDDEN), generator=torch.Generator().manual_seed(3))
    for rows in ({}, {"embed": added}, {} if tied else {"head": added, "embed": added}):
        checkpoint = replace(trained, config=config, rows=rows)
        loaded = backbone_of(checkpoint, base, device=torch.device("cpu"), dtype=torch.float32)
        whole = whole_rows(checkpoint, base)
        assert set(whole) == ({"embed"} if tied else {"embed", "head"})
        assert torch.equal(whole["embed"], loaded.model.get_input_embeddings().weight)
        if not tied:
            assert torch.equal(whole["head"], loaded.model.get_output_embeddings().weight)
