"""JSON shapes of trainings and their files."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas import NAME_CHARS, Request
from clara.db.tables import RunStatus

FILES = 16
"""Most files of one training."""


class NewTraining(Request):
    """One stage of training."""

    stage: int = Field(ge=1, le=3, description="1 compression, 2 instruction tuning, 3 end to end.")
    data: list[str] = Field(
        min_length=1,
        max_length=FILES,
        description="Names of uploaded files.",
        examples=[["a.jsonl"]],
    )
    dev: list[str] = Field(
        default=[], max_length=FILES, description="Files that scores are made on."
    )
    config: dict[str, Any] = Field(
        default={},
        description="Settings of the stage that differ from its defaults, see docs/training.md.",
        examples=[{"length": {"epochs": 1}, "optimiser": {"learning_rate": 1e-4}}],
    )
    base: str = Field(
        default="",
        max_length=NAME_CHARS,
        description="Folder or Hub name of the base; that of this installation by default.",
    )
    checkpoint: str = Field(
        default="",
        max_length=NAME_CHARS,
        description="What stages 2 and 3 go on from: id or name of a checkpoint, an absolute path "
        "on the workers' machine, or a Hub name.",
    )
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="Of the checkpoint to be."
    )


class TrainingProgress(BaseModel):
    """How far a training is."""

    step: int
    steps: int
    phase: str = Field(description="checking data, training or registering.")
    loss: float | None
    parts: dict[str, float] = Field(description="Losses by name, unweighted.")
    tokens_per_s: float | None
    seconds: float | None = Field(description="Spent in steps, over all attempts.")
    seconds_left: float | None
    scores: dict[str, Any] | None = Field(description="The last ones on the dev records.")


class Training(BaseModel):
    """A training; its id is that of its run."""

    id: UUID
    name: str
    stage: int
    status: RunStatus
    progress: TrainingProgress
    checkpoint_id: UUID | None = Field(description="What came out of it.")
    attempts: int
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class TrainingDetail(Training):
    """A training, what it was asked to do, and what came out."""

    config: dict[str, Any]
    data: list[str]
    dev: list[str]
    base: str
    checkpoint: str
    result: dict[str, Any] | None


class Trainings(BaseModel):
    """A page of trainings, newest first."""

    trainings: list[Training]
    next: str | None


class Curves(BaseModel):
    """Losses and scores by step: lists with an entry per step, or per score under `dev`."""

    of: int = Field(description="Steps of the whole training.")
    share: float = Field(description="How much of it is done.")
    at: float = Field(description="Seconds spent in steps.")
    steps: list[int]
    loss: list[float]
    rate: list[float] = Field(description="Learning rate.")
    gradient: list[float]
    tokens_per_second: list[float]
    parts: dict[str, list[float | None]] = Field(description="Losses by name, unweighted.")
    dev: dict[str, list[float | None]] = Field(description="`steps`, and each score by name.")
    best: dict[str, float] | None = Field(description="The lowest dev score and its step.")
    resumed: list[int] = Field(description="Steps after which it went on from a saved state.")


class TrainingFile(BaseModel):
    """A file of training records."""

    name: str
    bytes: int
    modified_at: datetime


class TrainingFiles(BaseModel):
    """All files of training records, by name."""

    files: list[TrainingFile]
