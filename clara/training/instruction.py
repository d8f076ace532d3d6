"""Stage 2: the generator learns to answer from a few documents. arXiv:2511.18659, section 3.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from clara.model.kinds import LatentKind
from clara.model.tokens import Tokens
from clara.training.compression import (
    Reading,
    at_rate,
    laid_out,
    reading_losses,
    reading_weights,
)
from clara.training.config import InstructionConfig
from clara.training.records import QuestionRecord
from clara.training.stages import Sums, cut_documents, target
from clara.training.trainee import Trainee


@dataclass(frozen=True)
class Instruction:
    """Objective of stage 2."""

    config: InstructionConfig
    tokens: Tokens
    kind: LatentKind
    rates: tuple[int, ...]

    @property
    def learning(self) -> tuple[str, ...]:
        """The compressor too, unless the generator reads text."""
        return ("compressor", "generator") if self.config.read == "latents" else ("generator",)

    @property
    def weights(self) -> Mapping[str, float]:
        """LM loss, and 0.1 of the alignment as published."""
        return reading_weights(self.config.mse_loss, self.config.mse_weight)

    def example(self, record: QuestionRecord, random: Random) -> Reading | None:
        """A question with the latents of its first documents, or with their text."""
        documents = record.documents[: self.config.generation_top_k]
        if self.config.read == "text":
            return self._from_text(record, documents)
        rate = random.choice(self.rates)
        kind = at_rate(self.kind, rate)
        ids = [
            laid_out(self.tokens, self.kind, row) for row in cut_documents(self.tokens, documents)
        ]
        rows = [kind.rows(row) for row in ids]
        prompts = self.tokens.prompts
        found = target(
            self.tokens,
            prompts.from_latents(record.question, rows),
            prompts.from_latents(record.question, rows, record.answer),
            self.config.max_len,
        )
        return found and Reading(record.id, tuple(map(tuple, ids)), rate, (found,))

    def __call__(self, trainee: Trainee, examples: Sequence[Reading]) -> Sums:
        """Answer and alignment losses."""
        return reading_losses(trainee, examples)

    def _from_text(self, record: QuestionRecord, documents: Sequence[str]) -> Reading | None:
        prompts = self.tokens.prompts
        found = target(
            self.tokens,
            prompts.from_text(record.question, documents),
            prompts.from_text(record.question, documents, record.answer),
            self.config.max_len,
        )
        return found and Reading(record.id, (), self.rates[0], (found,))
