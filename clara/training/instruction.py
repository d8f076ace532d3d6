"""Stage 2: the generator learns to answer from a few documents. arXiv:2511.18659, section 3.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from clara.model.kinds import LatentKind
from clara.model.tokens import Tokens
from clara.training.changed import Vocabulary, changed
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
from clara.training.redacted import redacted
from clara.training.stages import Sums, cut_documents, target
from clara.training.trainee import Trainee
from clara.wording import NOT_IN_DOCUMENTS


@dataclass(frozen=True)
class Asked:
    """A record as one reading meets it."""

    id: str
    question: str
    documents: Sequence[str]
    answer: str


@dataclass(frozen=True)
class Instruction:
    """Objective of stage 2."""

    config: InstructionConfig
    tokens: Tokens
    kind: LatentKind
    rates: tuple[int, ...]
    words: Vocabulary | None = None
    """Of the base, where questions are changed."""

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
        asked = given(record, self.config, random, self.words)
        if random.random() < self.config.text_share:
            return self._from_text(asked)
        rate = drawn_rate(self.rates, self.config.rate_weights, random)
        kind = at_rate(self.kind, rate)
        ids = [
            laid_out(self.tokens, self.kind, row)
            for row in cut_documents(self.tokens, asked.documents)
        ]
        rows = [kind.rows(row) for row in ids]
        prompts = self.tokens.prompts
        found = target(
            self.tokens,
            prompts.from_latents(asked.question, rows),
            prompts.from_latents(asked.question, rows, asked.answer),
            self.config.max_len,
        )
        return found and Reading(asked.id, tuple(map(tuple, ids)), rate, (found,))

    def __call__(self, trainee: Trainee, examples: Sequence[Reading]) -> Sums:
        """Answer and alignment losses."""
        return reading_losses(trainee, examples)

    def _from_text(self, asked: Asked) -> Reading | None:
        prompts = self.tokens.prompts
        found = target(
            self.tokens,
            prompts.from_text(asked.question, asked.documents),
            prompts.from_text(asked.question, asked.documents, asked.answer),
            self.config.max_len,
        )
        return found and Reading(asked.id, (), self.rates[0], (found,))


def given(
    record: QuestionRecord,
    config: InstructionConfig,
    random: Random,
    words: Vocabulary | None = None,
) -> Asked:
    """A question with the documents that are read with it, in their order, and what is to be said.

    Where a share of the questions is to be refused, they lose their positives, or the sentences in
    these that hold the answer, or are changed in a word; how many documents are left is drawn alike
    for all, so that the number gives nothing away while there are enough.

    Args:
        record: with its candidates.
        config: what is drawn, and how often.
        random: of this record.
        words: of the base; without them, no question is changed.
    """
    documents: Sequence[str] = record.documents[: config.generation_top_k]
    positives = [at for at in record.positives if at < len(documents)]
    others = [at for at in range(len(documents)) if at not in positives]
    if not positives or not others:
        return Asked(record.id, record.question, documents, record.answer)
    fewest = min(config.fewest_documents or len(documents), len(documents))
    count = random.randint(fewest, len(documents))
    question, right = record.question, positives
    refused = random.random() < config.refusal_share
    if refused:
        found = _unanswered(record, documents, config, random, words)
        question, documents = found or (question, documents)
        right = positives if found else []
    kept = random.sample(others, min(max(count - len(right), 0), len(others)))
    read = [documents[at] for at in sorted([*kept, *right])]
    return Asked(record.id, question, read, NOT_IN_DOCUMENTS if refused else record.answer)


def _unanswered(
    record: QuestionRecord,
    documents: Sequence[str],
    config: InstructionConfig,
    random: Random,
    words: Vocabulary | None,
) -> tuple[str, Sequence[str]] | None:
    """Question and documents that do not answer it, though those stay that are about it.

    None where the positives must go: as often as the two shares leave it, and where there is no
    word to change, or no sentence to take out.
    """
    drawn = random.random()
    if drawn < config.changed_share:
        question = words and changed(record.question, documents, words, random)
        return (question, documents) if question else None
    if drawn < config.changed_share + config.redacted_share:
        left = redacted(record.question, documents, record.answer)
        return (record.question, left) if left else None
    return None
