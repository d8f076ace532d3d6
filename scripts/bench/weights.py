"""Checkpoints made for a measurement: random adapters over a real base, kept in a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from clara.model import checkpoint
from clara.model.checkpoint import ROLES, Checkpoint, CheckpointConfig
from clara.model.lora import ALPHA_PER_RANK, block_linears
from clara.model.models import Models, load_models
from clara.model.pooled import initial_pooling
from clara.model.tokens import load_tokens

RANK = 16
"""Of the adapters, as published."""
CHANGE = 0.2
"""Size of an adapter's change against that of the weight: more than training makes of it."""
DOC_MAX_LENGTH = 256
RATE = 16
KINDS = ("memory", "pooled")


@dataclass(frozen=True)
class Setup:
    """What every process of a run needs to load the same weights."""

    base: Path
    checkpoints: Path
    """Folder with one checkpoint per kind."""
    device: str
    dtype: torch.dtype | None
    """None: by the device."""
    threads: int
    seed: int

    def models(self, kind: str, *, dtype: torch.dtype | None = None) -> Models:
        """Load the roles of one kind; in `dtype` instead of the run's where given."""
        return self.load(self.checkpoint(kind), dtype=dtype)

    def load(self, weights: Checkpoint, *, dtype: torch.dtype | None = None) -> Models:
        """As `models`, from weights that were read before."""
        return load_models(weights, base=self.base, device=self.device, dtype=dtype or self.dtype)

    def checkpoint(self, kind: str) -> Checkpoint:
        """The weights of one kind over the base."""
        return checkpoint.load(self.checkpoints / kind, base=self.base)


def write(setup: Setup, model: PreTrainedModel, texts: Sequence[str]) -> None:
    """Make and save a checkpoint of each kind.

    The pooled one has no compressor adapter: its latents need no pass through the model.

    Args:
        setup: says where.
        model: the base, for shapes and sizes of its weights.
        texts: token frequencies are counted in them.
    """
    seeds = {role: setup.seed + i for i, role in enumerate(ROLES)}
    adapters = {role: random_adapter(model, seed) for role, seed in seeds.items()}
    memory = CheckpointConfig(str(setup.base), compr_rate=RATE, doc_max_length=DOC_MAX_LENGTH)
    pooled = CheckpointConfig(
        str(setup.base),
        compr_rate=RATE,
        doc_max_length=DOC_MAX_LENGTH,
        different_mem_tokens=False,
        kind="pooled",
    )
    _save(Checkpoint(memory, adapters, name="random"), setup)
    pooling = {"compressor": _pooling(setup, model, texts)}
    generator = {"generator": adapters["generator"]}
    _save(Checkpoint(pooled, generator, name="random", pooling=pooling), setup)


def random_adapter(model: PreTrainedModel, seed: int) -> dict[str, Tensor]:
    """A seeded adapter that changes every weight by about CHANGE of its own size; float32."""
    source = torch.Generator().manual_seed(seed)
    made = {}
    for name, layer in block_linears(model).items():
        size = CHANGE * float(layer.weight.float().std()) / (ALPHA_PER_RANK * math.sqrt(RANK))
        made[f"{name}.lora_A.weight"] = torch.randn((RANK, layer.in_features), generator=source)
        up = torch.randn((layer.out_features, RANK), generator=source)
        made[f"{name}.lora_B.weight"] = size * up
    return made


def _pooling(setup: Setup, model: PreTrainedModel, texts: Sequence[str]) -> dict[str, Tensor]:
    n_mem = DOC_MAX_LENGTH // RATE
    tokens = load_tokens(setup.base, n_mem=n_mem, doc_max_length=DOC_MAX_LENGTH, different=False)
    width = int(model.config.hidden_size)
    found = initial_pooling(tokens.encode(texts), vocabulary=tokens.size, width=width)
    return found.tensors()


def _save(made: Checkpoint, setup: Setup) -> None:
    checkpoint.save(made, setup.checkpoints / made.config.kind)
