"""The model library's tiny checkpoint, and questions about its passages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clara.evaluation.datasets import Record
from clara.model.checkpoint import Checkpoint, CheckpointConfig
from clara.model.models import Models
from clara.model.pooled import initial_pooling
from tests.clara.model.conftest import (
    RANK,
    _one_thread,
    adapters,
    base,
    models,
    opened,
    trained,
)

__all__ = ["_one_thread", "adapters", "base", "models", "opened", "trained"]

PASSAGES = (
    "The harbour wall was built in 1874.",
    "Honey bees tell each other where flowers grow.",
    "Tea reached the market in 1723.",
    "Sea ice forms when salt water cools.",
    "The engineer was Margaret Osgood.",
    "A ship came from Canton.",
    "The market is on the wall.",
)


@pytest.fixture(scope="session")
def pooled(
    base: Path,
    adapters: dict[str, dict[str, torch.Tensor]],
    models: Models,
    opened: Callable[..., Models],
) -> Models:
    """A checkpoint whose latents have as many rows as their passage is long."""
    config = CheckpointConfig(
        str(base),
        compr_rate=4,
        doc_max_length=32,
        different_mem_tokens=False,
        lora_r=RANK,
        training_stage="stage2",
        kind="pooled",
        rates=(4, 8),
    )
    start = initial_pooling(
        models.tokens.encode(PASSAGES), vocabulary=models.tokens.base_size + 4, width=models.width
    )
    open_gate = {**start.tensors(), "gate": torch.full((models.width,), 0.5)}
    pooling = {"compressor": open_gate, "reasoner": open_gate}
    return opened(Checkpoint(config, adapters, trained=True, name="pooled", pooling=pooling))


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """Four questions with different numbers of candidates and gold passages."""
    return [
        Record("a", "Who built the wall?", ("Margaret Osgood", "Osgood"), PASSAGES, (4, 0)),
        Record("b", "When did tea come?", ("1723",), PASSAGES[:4], (2,)),
        Record("c", "What do bees tell?", ("where flowers grow",), PASSAGES[1:], (0,)),
        Record("d", "Where did the ship come from?", ("Canton",), (PASSAGES[5],), (0,)),
    ]
