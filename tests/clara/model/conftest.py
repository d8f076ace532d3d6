"""Tiny random models and checkpoints for the model library's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from clara.model.checkpoint import Checkpoint, CheckpointConfig
from clara.model.lora import block_linears
from clara.model.models import Models, load_models
from tests.tiny import HIDDEN, tiny_base

RANK = 4


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny matrices only wait for each other on several processor threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny base model."""
    return tiny_base(tmp_path_factory.mktemp("base"))


def adapter(base: Path, seed: int) -> dict[str, Tensor]:
    """A random adapter large enough to change every output."""
    model = AutoModelForCausalLM.from_pretrained(base)
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, linear in block_linears(model).items():
        down = torch.randn((RANK, linear.in_features), generator=generator)
        up = torch.randn((linear.out_features, RANK), generator=generator)
        made[f"{name}.lora_A.weight"] = 0.1 * down
        made[f"{name}.lora_B.weight"] = 0.1 * up
    return made


@pytest.fixture(scope="session")
def adapters(base: Path) -> dict[str, dict[str, Tensor]]:
    """One different adapter per role."""
    roles = ("compressor", "reasoner", "generator")
    return {role: adapter(base, seed) for seed, role in enumerate(roles)}


@pytest.fixture(scope="session")
def trained(base: Path, adapters: dict[str, dict[str, Tensor]]) -> Checkpoint:
    """A checkpoint as the last stage leaves it: three adapters and memory rows."""
    config = CheckpointConfig(
        str(base), compr_rate=4, doc_max_length=32, lora_r=RANK, training_stage="stage2"
    )
    rows = torch.randn((config.added, HIDDEN), generator=torch.Generator().manual_seed(9))
    return Checkpoint(config, adapters, {"embed": rows}, trained=True, name="tiny")


@pytest.fixture(scope="session")
def opened() -> Callable[..., Models]:
    """Loads a checkpoint on the CPU in float32."""
    return lambda checkpoint, **options: load_models(
        checkpoint, **{"device": "cpu", "dtype": torch.float32, **options}
    )


@pytest.fixture(scope="session")
def models(trained: Checkpoint, opened: Callable[..., Models]) -> Models:
    return opened(trained)
