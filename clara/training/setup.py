"""Where a stage begins: which adapters it loads, makes and trains. REFERENCE of the published form:

| stage | new training | from a checkpoint | learns |
| --- | --- | --- | --- |
| 1 | compressor and generator new | both loaded | both; memory rows in a new training |
| 2 | | compressor loaded, generator new or loaded | both |
| 3 | | all loaded; a reasoner begins as the compressor | reasoner and generator |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from clara.errors import InvalidTraining
from clara.model.backbone import Backbone, embedding_of
from clara.model.checkpoint import Checkpoint, CheckpointConfig
from clara.model.models import backbone_of
from clara.model.pooled import Pooling, initial_pooling, pooling_from
from clara.training.changed import Vocabulary, vocabulary
from clara.training.compression import Compression
from clara.training.config import (
    CompressionConfig,
    EndToEndConfig,
    InstructionConfig,
    StageConfig,
)
from clara.training.end_to_end import EndToEnd
from clara.training.instruction import Instruction
from clara.training.records import CompressionRecord, Record
from clara.training.stages import Objective
from clara.training.trainee import Trainee


def begin(
    config: StageConfig,
    start: Checkpoint,
    base: Path,
    records: Sequence[Record],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Trainee, Objective]:
    """The model as a stage begins, and the stage's objective.

    Args:
        config: of the stage.
        start: checkpoint to go on from; one without weights for a new stage 1.
        base: folder.
        records: token frequencies of a new pooled checkpoint are counted in their documents.
        device: of the model.
        dtype: of the frozen base.
    Raises:
        InvalidTraining: `start` is of the wrong stage.
    """
    _check_start(config, start)
    backbone = backbone_of(start, base, device=device, dtype=dtype)

    def objective_of(trainee: Trainee, batch: Sequence[object]) -> object:
        return objective(trainee, batch)

    trainee = Trainee(
        backbone,
        _config_of(start, config),
        objective=objective_of,
        pooling=_poolings(config, start, backbone, records),
        dropout=config.dropout,
        recompute=config.optimiser.recompute,
        most_tokens=config.optimiser.micro_tokens,
    )
    _adapters(config, start, trainee)
    if not start.trained and start.config.kind == "memory":
        trainee.train_memory_rows()
    objective = _objective(config, trainee)
    return trainee.train(), objective


def _config_of(start: Checkpoint, config: StageConfig) -> CheckpointConfig:
    """Without what was measured of a generator that is about to change."""
    found = start.config
    if isinstance(config, EndToEndConfig):
        found = replace(found, interaction=config.interaction or found.interaction)
        if not config.answer_weight:
            return found
    return replace(found, text_refusal_margin=None, refusal_margins=())


def _check_start(config: StageConfig, start: Checkpoint) -> None:
    needs = {InstructionConfig: "stage 1", EndToEndConfig: "stage 2"}.get(type(config))
    if needs and not start.trained:
        raise InvalidTraining(
            f"{config.stage.title} goes on from a checkpoint of {needs}; {start.name} is untrained",
            field="checkpoint",
        )
    if isinstance(config, EndToEndConfig) and start.config.training_stage == "stage1":
        raise InvalidTraining(
            f"{config.stage.title} goes on from stage 2; {start.name} has stage 1 only",
            field="checkpoint",
            remedy="Train stage 2 on it first",
        )


def _adapters(config: StageConfig, start: Checkpoint, trainee: Trainee) -> None:
    kept = dict(start.adapters)
    if isinstance(config, InstructionConfig) and config.new_generator:
        kept.pop("generator", None)
    if isinstance(config, EndToEndConfig) and "compressor" in kept:
        kept.setdefault("reasoner", kept["compressor"])
    if not isinstance(config, EndToEndConfig):
        kept.pop("reasoner", None)  # it belongs to a compressor that is about to change
    for role, adapter in kept.items():
        trainee.adapters.load(role, adapter)
    for seed, role in enumerate(_wanted(config, start)):
        if role not in kept:
            trainee.adapters.make(role, rank=config.lora_r, seed=config.seed + seed)


def _wanted(config: StageConfig, start: Checkpoint) -> list[str]:
    """Roles that need an adapter; a pooled compressor may do without."""
    if isinstance(config, EndToEndConfig):
        return ["generator", "reasoner"]
    context = start.config.kind == "memory" or config.latents.contextual
    return ["generator", "compressor"] if context else ["generator"]


def _poolings(
    config: StageConfig, start: Checkpoint, backbone: Backbone, records: Sequence[Record]
) -> Mapping[str, Pooling]:
    if start.config.kind != "pooled":
        return {}
    place = torch.device("cpu")
    found = {role: pooling_from(kept, place) for role, kept in start.pooling.items()}
    if "compressor" not in found:
        found["compressor"] = initial_pooling(
            _documents(backbone, records),
            vocabulary=backbone.tokens.size,
            width=backbone.width,
            numerals=backbone.tokens.numerals(),
        )
    if isinstance(config, EndToEndConfig):
        found.setdefault("reasoner", found["compressor"])
    else:
        found.pop("reasoner", None)
    return found


def _documents(backbone: Backbone, records: Sequence[Record]) -> Iterable[list[int]]:
    texts = {
        text
        for record in records
        for text in (
            [record.document] if isinstance(record, CompressionRecord) else record.documents
        )
    }
    return backbone.tokens.encode(sorted(texts))


def _check_weights(weights: Sequence[float], rates: Sequence[int]) -> None:
    if weights and (len(weights) != len(rates) or min(weights) < 0 or not sum(weights)):
        raise InvalidTraining(
            f"rate_weights {list(weights)} do not fit the rates {', '.join(map(str, rates))}",
            field="rate_weights",
            remedy="Give every rate a number from 0 on, and one of them more than 0",
        )


def _words(config: InstructionConfig, trainee: Trainee) -> Vocabulary | None:
    if not config.refusal_share * config.changed_share:
        return None
    return vocabulary(trainee.tokens, embedding_of(trainee.model).weight)


def _objective(config: StageConfig, trainee: Trainee) -> Objective:
    kind, rates = trainee.kind("compressor"), trainee.config.rates
    if isinstance(config, CompressionConfig | InstructionConfig):
        _check_weights(config.rate_weights, rates)
    if isinstance(config, CompressionConfig):
        return Compression(config, trainee.tokens, kind, rates)
    if isinstance(config, InstructionConfig):
        return Instruction(config, trainee.tokens, kind, rates, _words(config, trainee))
    if isinstance(config, EndToEndConfig):
        return EndToEnd(config, trainee.tokens, kind, rates)
    raise InvalidTraining(f"no objective for {type(config).__name__}")
