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
    drawn_rate,
    laid_out,
    reading_losses,
    reading_weights,
)
from clara.training.config import InstructionConfig
from clara.training.records import QuestionRecord
from clara.training.stages import Sums, cut_documents, target
from clara.training.trainee import Trainee
from clara.wording import NOT_IN_DOCUMENTS


@dataclass(frozen=True)
class Instruction:
    """Objective of stage 2."""

    config: InstructionConfig
    tokens: Tokens
    kind: LatentKind
    rates: tuple[int, ...]

    @property
    def learning(self) -> tuple[str, ...]:
        """The compressor too, unless all is read as text."""
        return ("compressor", "generator") if self.config.text_share < 1 else ("generator",)

    @property
    def weights(self) -> Mapping[str, float]:
        """LM loss, and 0.1 of the alignment as published."""
        return reading_weights(self.config.mse_loss, self.config.mse_weight)

    def example(self, record: QuestionRecord, random: Random) -> Reading | None:
        """A question with the latents of its first documents, or with their text."""
        documents, answer = given(record, self.config, random)
        if random.random() < self.config.text_share:
            return self._from_text(record, documents, answer)
        rate = drawn_rate(self.rates, self.config.rate_weights, random)
        kind = at_rate(self.kind, rate)
        ids = [
            laid_out(self.tokens, self.kind, row) for row in cut_documents(self.tokens, documents)
        ]
        rows = [kind.rows(row) for row in ids]
        prompts = self.tokens.prompts
        found = target(
            self.tokens,
            prompts.from_latents(record.question, rows),
            prompts.from_latents(record.question, rows, answer),
            self.config.max_len,
        )
        return found and Reading(record.id, tuple(map(tuple, ids)), rate, (found,))

    def __call__(self, trainee: Trainee, examples: Sequence[Reading]) -> Sums:
        """Answer and alignment losses."""
        return reading_losses(trainee, examples)

    def _from_text(
        self, record: QuestionRecord, documents: Sequence[str], answer: str
    ) -> Reading | None:
        prompts = self.tokens.prompts
        found = target(
            self.tokens,
            prompts.from_text(record.question, documents),
            prompts.from_text(record.question, documents, answer),
            self.config.max_len,
        )
        return found and Reading(record.id, (), self.rates[0], (found,))


def given(
    record: QuestionRecord, config: InstructionConfig, random: Random
) -> tuple[Sequence[str], str]:
    """The documents that are read with a question, in their order, and what is to be said.

    Where a share of the questions is to be refused, they lose their positives; how many documents
    are left is drawn alike for both, so that the number gives nothing away while there are enough.
    """
    documents = record.documents[: config.generation_top_k]
    positives = [at for at in record.positives if at < len(documents)]
    others = [at for at in range(len(documents)) if at not in positives]
    if not positives or not others:
        return documents, record.answer
    refused = random.random() < config.refusal_share
    fewest = min(config.fewest_documents or len(documents), len(documents))
    count = random.randint(fewest, len(documents)) - (0 if refused else len(positives))
    kept = random.sample(others, min(max(count, 0), len(others)))
    if refused:
        return [documents[at] for at in sorted(kept)], NOT_IN_DOCUMENTS
    return [documents[at] for at in sorted([*kept, *positives])], record.answer
