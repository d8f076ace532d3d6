"""Tiny trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clara.model import checkpoint as checkpoints
from clara.model.checkpoint import Checkpoint
from clara.training.config import StageConfig, from_dict
from clara.training.records import CompressionRecord, QuestionRecord, Record
from clara.training.setup import begin
from clara.training.stages import Objective
from clara.training.trainee import Trainee
from tests.tiny import SENTENCES, tiny_base

RANK = 2


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


def config(stage: int, kind: str = "memory", **changes: Any) -> StageConfig:
    """A tiny stage: rank 2, rate 4, documents of 32 tokens, no dropout."""
    latents: dict[str, Any] = {"kind": kind, "compr_rate": 4, "doc_max_length": 32}
    if kind == "pooled":
        latents["rates"] = [4, 16]
    values = {"lora_r": RANK, "dropout": 0.0, "dtype": "float32", "max_len": 256}
    optimiser = {"learning_rate": 0.01, "batch_size": 4, **changes.pop("optimiser", {})}
    length = {"score_every": 0, "max_steps": 6, "epochs": 1000, **changes.pop("length", {})}
    if stage > 1:
        values["generation_top_k"] = 2
    return from_dict(
        {
            "stage": stage,
            **values,
            "latents": {**latents, **changes.pop("latents", {})},
            "optimiser": optimiser,
            "length": length,
            **changes,
        }
    )


DOCUMENTS = [sentence[:60] for sentence in SENTENCES]


def readings() -> list[Record]:
    """Records of stage 1."""
    found: list[Record] = [
        CompressionRecord(f"q{i}", "", "qa", text, (("Who?", text[:9]), ("Why?", "tea")), "")
        for i, text in enumerate(DOCUMENTS)
    ]
    found.append(CompressionRecord("p", "", "paraphrase", DOCUMENTS[0], (), DOCUMENTS[1]))
    return found


def questions(candidates: int = 2) -> list[Record]:
    """Records of stages 2 and 3."""
    return [
        QuestionRecord(
            f"q{i}",
            "",
            f"What of {i}?",
            tuple((DOCUMENTS * 2)[i : i + candidates]),
            text[:12],
            (0,),
        )
        for i, text in enumerate(DOCUMENTS)
    ]


Begun = Callable[..., tuple[Trainee, Objective]]


@pytest.fixture
def begun(base: Path) -> Begun:
    """Begin a stage on the tiny base, from a checkpoint or anew."""

    def run(
        stage: StageConfig, start: Checkpoint | None = None, records: list[Record] | None = None
    ) -> tuple[Trainee, Objective]:
        latents = stage.latents
        fresh = checkpoints.CheckpointConfig(
            base=str(base),
            compr_rate=latents.compr_rate,
            doc_max_length=latents.doc_max_length,
            different_mem_tokens=latents.kind == "memory",
            kind=latents.kind,
            rates=latents.rates,
        )
        return begin(
            stage,
            start or Checkpoint(fresh),
            base,
            records or readings(),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )

    return run


def shaken(trainee: Trainee) -> None:
    """Give every parameter a value that shows, B and gates included."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in trainee.named_parameters():
            if ".down." in name or ".up." in name or "pooling" in name or name == "memory_rows":
                parameter += 0.1 * torch.randn_like(parameter)


def as_checkpoint(trainee: Trainee, stage: str = "stage1") -> Checkpoint:
    """What was learned, in full precision, so that both sides compute the same."""
    made = trainee.checkpoint(stage=stage, name="tiny", base_hash="", rank=RANK)
    adapters = {role: trainee.adapters.export(role, torch.float32) for role in made.adapters}
    return Checkpoint(
        made.config, adapters, made.rows, trained=True, name="tiny", pooling=made.pooling
    )
