"""What a training does: one frozen dataclass per stage, saved with its run.

Defaults are those of arXiv:2511.18659 and its published scripts, for a base of 7 billion
parameters; `clara/training/recipe.py` has what suits the small default base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from clara.errors import InvalidTraining
from clara.training.records import Stage

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class LatentsConfig:
    """The latents of a new checkpoint; one that goes on keeps those it has."""

    kind: Literal["memory", "pooled"] = "memory"
    compr_rate: int = Field(default=32, ge=1, le=256)
    """Tokens per row of a latent."""
    rates: tuple[int, ...] = ()
    """Rates to train for, `compr_rate` among them; only the pooled kind takes several."""
    doc_max_length: int = Field(default=256, ge=8, le=8192)
    """Longest document, in tokens; what is longer is cut and counted."""
    contextual: bool = False
    """Whether pooled latents hold contextual states too."""


@dataclass(frozen=True, config=_STRICT)
class OptimiserConfig:
    """Steps and their size."""

    learning_rate: float = Field(default=1e-4, gt=0, le=1)
    weights_rate: float = Field(default=1.0, gt=0, le=1000)
    """Times the learning rate: of pooling weights, gates and memory rows."""
    schedule: Literal["cosine", "constant"] = "cosine"
    final_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the learning rate a cosine ends at."""
    warmup: float = Field(default=0.03, ge=0, le=1)
    """Share of the training in which the learning rate rises from 0."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    """Longest gradient, over all parameters."""
    batch_size: int = Field(default=128, ge=1, le=65_536)
    """Records per step, over all processes."""
    micro_tokens: int = Field(default=4096, ge=1)
    """Most token places of one pass and process: what decides memory."""
    recompute: bool = False
    """Gradient checkpointing: less memory, about a third more time."""


@dataclass(frozen=True, config=_STRICT)
class LengthConfig:
    """How long a training goes on; the first bound that is met ends it."""

    epochs: float = Field(default=1.0, gt=0, le=1000)
    max_steps: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    """Time in steps, saving and scoring left out; counted over all resumptions."""
    score_every: int = Field(default=200, ge=0)
    """Steps between two scores on the dev records; 0 for never."""
    save_every: int = Field(default=100, ge=1)
    """Steps between two saved states: what a kill can lose."""
    patience: int | None = Field(default=None, ge=1)
    """Scores without a better one after which the training ends."""
    do_eval_gen: bool = False
    """Whether every score also has answers generated and compared with the gold ones."""
    eval_gen_records: int = Field(default=50, ge=1)
    """Dev records that are answered for it."""
    eval_gen_tokens: int = Field(default=32, ge=1, le=4096)
    """Longest generated answer."""


@dataclass(frozen=True, config=_STRICT)
class StageConfig:
    """What all stages have."""

    stage: ClassVar[Stage]

    latents: LatentsConfig = Field(default_factory=LatentsConfig)
    optimiser: OptimiserConfig = Field(default_factory=OptimiserConfig)
    length: LengthConfig = Field(default_factory=LengthConfig)
    lora_r: int = Field(default=16, ge=1, le=1024)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of what an adapter reads."""
    max_len: int = Field(default=2048, ge=16)
    """Longest prompt with its answer, in tokens; longer answers are cut."""
    seed: int = 0
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the frozen base; what learns is float32. `auto` goes by the device."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {"stage": self.stage.value, **asdict(self)}


@dataclass(frozen=True, config=_STRICT)
class CompressionConfig(StageConfig):
    """Stage 1: questions and restatements from the latents of one document."""

    stage: ClassVar[Stage] = Stage.COMPRESSION
    mse_loss: bool = True
    """Whether the mean state at the memory tokens is drawn to that of the text."""
    mse_weight: float = Field(default=0.1, ge=0)
    qa_loss: bool = True
    """Whether records of questions are used, or restatements alone."""
    pairs_as: Literal["list", "single"] = "list"
    """A document's questions in one answer, as published, or each asked alone."""
    restate_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the documents that are also told again word for word from their latents."""
    text_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the documents whose questions are answered from their text, so that one generator
    reads both."""
    rate_weights: tuple[float, ...] = ()
    """How often each of the checkpoint's rates is drawn, in their order; alike where empty."""


@dataclass(frozen=True, config=_STRICT)
class InstructionConfig(StageConfig):
    """Stage 2: questions answered from the latents of a few documents."""

    stage: ClassVar[Stage] = Stage.INSTRUCTION
    generation_top_k: int = Field(default=5, ge=1, le=100)
    """Documents per question."""
    fewest_documents: int | None = Field(default=None, ge=1, le=100)
    """Read any number from this to `generation_top_k`, drawn by question; always that many where
    it is left out."""
    refusal_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the questions that are read without the documents that answer them, to be refused.
    """
    changed_share: float = Field(default=0.0, ge=0, le=1)
    """Share of those that keep their documents, and are changed in a word that these have."""
    redacted_share: float = Field(default=0.0, ge=0, le=1)
    """Share of those that keep their documents, but for the sentences that hold the answer."""
    mse_loss: bool = True
    mse_weight: float = Field(default=0.1, ge=0)
    new_generator: bool = True
    """Begin with a new adapter for the generator, as published, or go on with stage 1's."""
    text_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the questions that are answered from the documents' text; 1 trains the generator
    alone: the baseline of the benchmarks."""
    rate_weights: tuple[float, ...] = ()
    """How often each of the checkpoint's rates is drawn, in their order; alike where empty."""

    @model_validator(mode="after")
    def _share_what_is_refused(self) -> InstructionConfig:
        if self.changed_share + self.redacted_share > 1:
            raise ValueError(
                f"changed_share {self.changed_share:g} and redacted_share {self.redacted_share:g} "
                "are shares of the same questions: together at most 1"
            )
        return self


@dataclass(frozen=True, config=_STRICT)
class EndToEndConfig(StageConfig):
    """Stage 3: the query reasoner chooses, the generator answers; the compressor stays."""

    stage: ClassVar[Stage] = Stage.END_TO_END
    optimiser: OptimiserConfig = Field(
        default_factory=lambda: OptimiserConfig(
            learning_rate=5e-6, schedule="constant", batch_size=32
        )
    )
    max_len: int = Field(default=1024, ge=16)
    generation_top_k: int = Field(default=5, ge=1, le=100)
    """Documents read of the candidates."""
    temperature: float = Field(default=0.02, gt=0)
    """Of the selection, in score units."""
    retrieval_weight: float = Field(default=0.0, ge=0)
    """Of a contrastive loss on `pos_index` beside the answer's; 0 as published."""
    answer_weight: float = Field(default=1.0, ge=0)
    """Of the answer's loss; at 0 nothing is generated, and only the query reasoner learns."""
    interaction: Literal["mean", "late"] | None = None
    """How pooled latents of question and passage are compared from now on, by their mean rows or
    row by row; None: as the checkpoint does."""

    @model_validator(mode="after")
    def _learns(self) -> EndToEndConfig:
        if not self.answer_weight and not self.retrieval_weight:
            raise ValueError("answer_weight and retrieval_weight are both 0: nothing is learned")
        return self


CONFIGS: dict[Stage, type[StageConfig]] = {
    config.stage: config for config in (CompressionConfig, InstructionConfig, EndToEndConfig)
}


def from_dict(raw: Mapping[str, Any]) -> StageConfig:
    """A stage's configuration out of JSON; what is left out has its default.

    Raises:
        InvalidTraining: an unknown stage or field, or a value out of range; all of them are named.
    """
    values = _renamed(raw)
    number = values.pop("stage", None)
    if number not in {stage.value for stage in Stage}:
        raise InvalidTraining(f"stage is {number!r}; known are 1, 2 and 3", field="stage")
    try:
        return TypeAdapter(CONFIGS[Stage(number)]).validate_python(values)
    except ValidationError as error:
        faults = [(".".join(map(str, f["loc"])), f["msg"], f["input"]) for f in error.errors()]
        told = "; ".join(f"{where}: {why}, got {value!r}" for where, why, value in faults)
        raise InvalidTraining(
            f"the training cannot run: {told}", field=faults[0][0], remedy="See docs/training.md"
        ) from error


def _renamed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """With the field that folders of earlier trainings have under another name."""
    values = dict(raw)
    if values.get("read") in {"latents", "text"}:
        values["text_share"] = float(values.pop("read") == "text")
    return values
