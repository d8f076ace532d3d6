"""Golden losses: the same records through our stages as through the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import torch
from torch import Tensor

from clara.model import checkpoint as checkpoints
from clara.training.config import (
    CompressionConfig,
    EndToEndConfig,
    InstructionConfig,
    StageConfig,
)
from clara.training.records import CompressionRecord, QuestionRecord, Record
from clara.training.setup import begin
from clara.training.stages import Objective
from clara.training.trainee import Trainee
from tests.clara.model.golden import FOLDER

T = TypeVar("T")
ROLES = {
    "encoder_adapter": "compressor",
    "query_reasoner_adapter": "reasoner",
    "decoder_adapter": "generator",
}


class Fixed(Random):
    """Draws the instruction a case was recorded with, and otherwise the first of what there is."""

    def __init__(self, instruction: int | None) -> None:
        super().__init__(0)
        self._instruction = instruction or 0

    def randrange(self, *_: Any) -> int:  # type: ignore[override]
        return self._instruction

    def choice(self, options: Sequence[T]) -> T:
        return options[0]


@dataclass
class Ran:
    """One micro-batch that went through a stage, with gradients of its published total."""

    means: dict[str, float]
    gradients: dict[str, Tensor]
    """By parameter, under our roles."""

    def norm(self, role: str) -> float:
        """Length of one role's gradient; 0 where none reached it."""
        own = [g for name, g in self.gradients.items() if name.endswith(f".{role}")]
        return float(torch.stack([g.norm() for g in own]).norm()) if own else 0.0


def run(case: str, expected: dict[str, Any], tag: str) -> Ran:
    """One recorded loss of a case, by our stage of the same name."""
    trial = expected["losses"][tag]
    config = _config(trial)
    base = FOLDER / expected["base"]
    start = checkpoints.load(FOLDER / "checkpoints" / case, base=base)
    records = [_record(item, config) for item in trial["items"]]
    trainee, objective = begin(
        config, start, base, records, device=torch.device("cpu"), dtype=torch.float32
    )
    if tag.endswith("_fresh"):
        trainee.train_memory_rows()
    return _through(trainee.eval(), objective, records, trial)


def _through(
    trainee: Trainee, objective: Objective, records: Sequence[Record], trial: dict[str, Any]
) -> Ran:
    learned = trainee.learn(objective.learning)
    fixed = Fixed(trial["paraphrase_index"])
    examples = [objective.example(record, fixed) for record in records]
    sums = objective(trainee, examples)
    counts = {
        name: sum(example.counts.get(name, 0) for example in examples if example) for name in sums
    }
    retrieval = trial["stage"] == "stage2_pretrain_retrieval"
    weights = {"retrieval": 1.0} if retrieval else {"answer": 1.0, "alignment": 0.1}
    means = {name: value / max(counts[name], 1) for name, value in sums.items()}
    loss = torch.stack([means[name] * w for name, w in weights.items() if name in means]).sum()
    loss.backward()
    gradients = {name: p.grad for name, p in learned.items() if p.grad is not None}
    return Ran({name: float(value.detach()) for name, value in means.items()}, gradients)


def _config(trial: dict[str, Any]) -> StageConfig:
    common: dict[str, Any] = {"dropout": 0.0, "max_len": trial["dec_max_len"]}
    stage = trial["stage"]
    if stage == "stage1":
        return CompressionConfig(**common)
    common["generation_top_k"] = trial["generation_top_k"]
    if stage == "stage1_2":
        return InstructionConfig(**common, new_generator=trial_resets(trial))
    return EndToEndConfig(**common)


def trial_resets(trial: dict[str, Any]) -> bool:
    """Whether the generator's adapter was made anew: the recorded one then gets no gradient on A,
    since B is zero."""
    by_parameter = trial["grad_norms_by_parameter"]
    down = [v for k, v in by_parameter.items() if ".lora_A." in k and "decoder" in k]
    return bool(down) and max(down) == 0.0


def _record(item: dict[str, Any], config: StageConfig) -> Record:
    if not isinstance(config, CompressionConfig):
        documents = tuple(item["docs"])
        positives = tuple(item["pos_index"])
        answer = item["answer"]
        answer = answer if isinstance(answer, str) else answer[0]
        return QuestionRecord("golden", "", item["question"], documents, answer, positives)
    (document,) = item["docs"]
    if item["data_type"] == "paraphrase":
        return CompressionRecord("golden", "", "paraphrase", document, (), item["answer"][0])
    pairs = tuple(zip(item["question"], item["answer"], strict=True))
    return CompressionRecord("golden", "", "qa", document, pairs, "")


def base_folder() -> Path:
    """Where golden bases lie."""
    return FOLDER / "bases"
