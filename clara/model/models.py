"""A checkpoint over its base, as the three roles that serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from clara.model.backbone import (
    Backbone,
    check_rows,
    embedding_of,
    load_backbone,
    pick_device,
    pick_dtype,
    write_rows,
)
from clara.model.checkpoint import Checkpoint, CheckpointConfig
from clara.model.compressor import Compressor
from clara.model.decoding import Lowered
from clara.model.fingerprints import fingerprint, weights_hash
from clara.model.fit import hash_of_base
from clara.model.generator import Generator, Hesitant
from clara.model.hub import local_folder
from clara.model.kinds import LatentKind, MemoryKind
from clara.model.lora import Adapter, merged
from clara.model.pooled import PooledKind, check_pooling, middle_of, pooling_from
from clara.model.reasoner import QueryReasoner
from clara.model.scoring import score
from clara.model.tokens import Tokens
from clara.wording import NOT_IN_DOCUMENTS

BATCH_TOKENS = (512, 16_384)
"""Token places of one compressor pass, on a CPU and on a GPU.

On a CPU larger passes are no faster and make a question wait longer.
"""


@dataclass(frozen=True)
class Models:
    """The roles of one checkpoint, ready to run, for one thread at a time."""

    compressor: Compressor
    reasoner: QueryReasoner
    generator: Generator
    tokens: Tokens
    checkpoint: Checkpoint
    fingerprint: str
    """Of the latents made here."""
    weights_hash: str
    """Of all weights."""
    device: torch.device
    """Where they compute."""
    width: int
    """Size of one row of a latent."""

    @property
    def rows(self) -> int:
        """Rows of the longest passage's latent."""
        return self.tokens.n_mem

    def score(self, query: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """Scores (n,) of one query latent against passages' blocks, as in training."""
        return score(self.compressor.kind, query, blocks)


def load_models(
    checkpoint: Checkpoint,
    *,
    base: str | Path | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    cache: Path | None = None,
    max_batch_tokens: int | None = None,
    rate: int | None = None,
) -> Models:
    """Load the base and give every role its weights.

    Roles with an adapter get a merged copy each that shares embedding and norms with the others;
    without adapters all roles are the base itself, once.

    Args:
        checkpoint: the weights over the base.
        base: folder or Hub name, where `checkpoint.config.base` does not lead to it.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU there is.
        dtype: of weights and computation; by the device where None.
        cache: folder that remembers hashes of large files.
        max_batch_tokens: token places of one compressor pass; by the device where None.
        rate: tokens per row, where the checkpoint was trained for several.
    Raises:
        InvalidCheckpoint: the base is unusable, or the weights do not fit it.
        CheckpointMismatch: the base has the right shape but is not the one trained on.
        ModelMissing: no base to be found.
    """
    if rate is not None:
        checkpoint = checkpoint.at_rate(rate)
    folder = local_folder(base or checkpoint.config.base)
    hashed = hash_of_base(checkpoint, folder, cache=cache)
    place = pick_device(device)
    kind = pick_dtype(place) if dtype is None else dtype
    budget = BATCH_TOKENS[place.type == "cuda"] if max_batch_tokens is None else max_batch_tokens
    backbone = backbone_of(checkpoint, folder, device=place, dtype=kind)
    roles = _roles(backbone, checkpoint)
    kinds = {role: kind_of(backbone, checkpoint, role) for role in ("compressor", "reasoner")}
    pad = backbone.tokens.pad
    return Models(
        compressor=Compressor(roles["compressor"].base_model, kinds["compressor"], pad, budget),
        reasoner=QueryReasoner(roles["reasoner"].base_model, kinds["reasoner"], pad, budget),
        generator=generator_of(roles["generator"], backbone, checkpoint.config).with_openings(),
        tokens=backbone.tokens,
        checkpoint=checkpoint,
        fingerprint=fingerprint(checkpoint, hashed, dtype=kind),
        weights_hash=weights_hash(checkpoint, hashed),
        device=place,
        width=backbone.width,
    )


def backbone_of(
    checkpoint: Checkpoint, folder: Path, *, device: torch.device, dtype: torch.dtype
) -> Backbone:
    """The base with the checkpoint's tokens and rows, before any adapter; training starts here."""
    config = checkpoint.config
    backbone = load_backbone(
        folder,
        n_mem=config.n_mem,
        doc_max_length=config.doc_max_length,
        different=config.different_mem_tokens,
        kbtc=config.kbtc_training,
        device=device,
        dtype=dtype,
    )
    check_rows(backbone, checkpoint.rows)
    for name, rows in checkpoint.rows.items():
        write_rows(backbone, name, rows)
    return backbone


def kind_of(backbone: Backbone, checkpoint: Checkpoint, role: str) -> LatentKind:
    """How `compressor` or `reasoner` makes latents; a reasoner of no own uses the compressor's."""
    config, embedding = checkpoint.config, embedding_of(backbone.model).weight
    if config.kind == "memory":
        return MemoryKind(backbone.tokens)
    owner = role if role in checkpoint.pooling else "compressor"
    kept = checkpoint.pooling[owner]
    check_pooling(kept, owner, vocabulary=len(embedding), width=backbone.width)
    return PooledKind(
        tokens=backbone.tokens,
        rate=config.compr_rate,
        pooling=pooling_from(kept, embedding.device),
        embedding=embedding,
        middle=middle_of(embedding, backbone.tokens.base_size),
        contextual=owner in checkpoint.adapters,
        late=config.interaction == "late",
        asks=config.interaction == "late" and role == "reasoner",
    )


def _roles(backbone: Backbone, checkpoint: Checkpoint) -> dict[str, PreTrainedModel]:
    """One model per role; roles with the same adapter share one."""
    adapters = checkpoint.adapters
    wanted: dict[str, Adapter | None] = {
        "compressor": adapters.get("compressor"),
        "reasoner": adapters.get("reasoner", adapters.get("compressor")),
        "generator": adapters.get("generator"),
    }
    made: dict[int, PreTrainedModel] = {id(None): backbone.model}
    for role, adapter in wanted.items():
        if adapter is not None and id(adapter) not in made:
            made[id(adapter)] = merged(backbone.model, adapter, role=role)
    return {role: made[id(adapter)] for role, adapter in wanted.items()}


def generator_of(model: PreTrainedModel, backbone: Backbone, config: CheckpointConfig) -> Generator:
    """Answers with `model`, from latents that a checkpoint of `config` makes over `backbone`."""
    ends = model.generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    embedding = embedding_of(backbone.model).weight
    pooled = config.kind == "pooled"
    return Generator(
        model=model,
        text_model=backbone.model,
        reads_text=config.reads_text,
        tokens=backbone.tokens,
        sep=config.sep,
        context=backbone.context,
        ends=frozenset([*listed, backbone.tokens.eos]),
        center=middle_of(embedding, backbone.tokens.base_size).mean if pooled else None,
        hesitant=_hesitant(backbone.tokens, config),
    )


def _hesitant(tokens: Tokens, config: CheckpointConfig) -> Hesitant:
    (first, *_), *_ = tokens.encode([NOT_IN_DOCUMENTS])

    def by(nats: float | None) -> Lowered | None:
        return Lowered(first, nats) if nats else None

    return Hesitant(by(config.text_refusal_margin), by(config.refusal_margin))
