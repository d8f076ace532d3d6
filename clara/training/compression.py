"""Stage 1: the compressor learns to keep what a document says. arXiv:2511.18659, section 3.1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

import torch
from torch import Tensor

from clara.model.kinds import LatentKind, MemoryKind
from clara.model.pooled import PooledKind
from clara.model.tokens import Tokens
from clara.prompts import PARAPHRASES
from clara.training import losses
from clara.training.config import CompressionConfig
from clara.training.records import CompressionRecord
from clara.training.stages import Sums, cut_documents, target
from clara.training.target import Target
from clara.training.trainee import Trainee


@dataclass(frozen=True)
class Reading:
    """Documents to compress, and what the generator has to say from their latents."""

    id: str
    documents: tuple[tuple[int, ...], ...]
    """As the compressor reads them."""
    rate: int
    targets: tuple[tuple[list[int], int], ...]
    """Ids of prompt and answer, and the length of the prompt; all about the same documents."""

    @cached_property
    def places(self) -> int:
        """Token places: documents and targets."""
        return sum(map(len, self.documents)) + sum(len(ids) for ids, _ in self.targets)

    @property
    def counts(self) -> Mapping[str, int]:
        """Answer tokens; documents."""
        tokens = sum(len(ids) - prompt for ids, prompt in self.targets)
        return {"answer": tokens, "alignment": len(self.documents)}


@dataclass(frozen=True)
class Compression:
    """Objective of stage 1."""

    config: CompressionConfig
    tokens: Tokens
    kind: LatentKind
    rates: tuple[int, ...]
    learning: tuple[str, ...] = ("compressor", "generator")

    @property
    def weights(self) -> Mapping[str, float]:
        """LM loss, and 0.1 of the alignment as published."""
        return reading_weights(self.config.mse_loss, self.config.mse_weight)

    def example(self, record: CompressionRecord, random: Random) -> Reading | None:
        """A document's questions or restatement, at one of the checkpoint's rates, or its text."""
        if record.kind == "qa" and not self.config.qa_loss:
            return None
        if record.kind == "qa" and random.random() < self.config.text_share:
            return self._from_text(record)
        rate = drawn_rate(self.rates, self.config.rate_weights, random)
        (document,) = cut_documents(self.tokens, [record.document])
        ids = laid_out(self.tokens, self.kind, document)
        rows = [at_rate(self.kind, rate).rows(ids)]
        kept = self._targets(self._texts(record, rows, random))
        return Reading(record.id, (tuple(ids),), rate, kept) if kept else None

    def __call__(self, trainee: Trainee, examples: Sequence[Reading]) -> Sums:
        """Answer and alignment losses."""
        return reading_losses(trainee, examples)

    def _from_text(self, record: CompressionRecord) -> Reading | None:
        """A document's questions, each alone, behind the document itself."""
        prompts, read = self.tokens.prompts, [record.document]
        kept = self._targets(
            (prompts.from_text(question, read), prompts.from_text(question, read, answer))
            for question, answer in record.pairs
        )
        return Reading(record.id, (), self.rates[0], kept) if kept else None

    def _targets(self, texts: Iterable[tuple[str, str]]) -> tuple[tuple[list[int], int], ...]:
        """Ids of prompts with their answers, as long as something of the answer is left."""
        found = (target(self.tokens, *pair, self.config.max_len) for pair in texts)
        return tuple(one for one in found if one is not None)

    def _texts(
        self, record: CompressionRecord, rows: list[int], random: Random
    ) -> list[tuple[str, str]]:
        """Prompts, alone and with their answers."""
        prompts, instruction = self.tokens.prompts, random.randrange(len(PARAPHRASES))
        if record.kind == "paraphrase":
            told = [record.restatement]
        else:
            told = [record.document] if random.random() < self.config.restate_share else []
        found = [
            (prompts.paraphrase(rows, instruction), prompts.paraphrase(rows, instruction, text))
            for text in told
        ]
        if record.kind == "qa" and self.config.pairs_as == "list":
            found.append((prompts.questions(rows), prompts.questions(rows, record.pairs)))
        elif record.kind == "qa":
            found += [
                (prompts.from_latents(question, rows), prompts.from_latents(question, rows, answer))
                for question, answer in record.pairs
            ]
        return found


def reading_weights(mse: bool, mse_weight: float) -> Mapping[str, float]:
    """Weights of the losses of the two stages that read given documents."""
    return {"answer": 1.0, "alignment": mse_weight if mse else 0.0}


def reading_losses(trainee: Trainee, examples: Sequence[Reading]) -> Sums:
    """Compress every example's documents and let the generator answer from them."""
    blocks: dict[int, list[Tensor]] = {i: [] for i in range(len(examples))}
    aligned = torch.zeros((), device=trainee.device)
    for rate in sorted({example.rate for example in examples}):
        members = [i for i, example in enumerate(examples) if example.rate == rate]
        sequences = [ids for i in members for ids in examples[i].documents]
        if not sequences:
            continue
        found, states = trainee.compress("compressor", sequences, rate=rate)
        if states and isinstance(trainee.kind("compressor"), MemoryKind):
            aligned = aligned + losses.alignment(states, trainee.tokens.n_mem)
        rest = iter(found)
        for i in members:
            blocks[i] = [next(rest) for _ in examples[i].documents]
    targets = [
        Target(ids, prompt, blocks[i])
        for i, example in enumerate(examples)
        for ids, prompt in example.targets
    ]
    nll = losses.answer_nll(trainee.answers(targets), trainee.labels(targets))
    return {"answer": nll, "alignment": aligned}


def laid_out(tokens: Tokens, kind: LatentKind, document: Sequence[int]) -> list[int]:
    """A cut document with what the kind puts behind it."""
    return [*document, *(tokens.memory if isinstance(kind, MemoryKind) else ())]


def drawn_rate(rates: Sequence[int], weights: Sequence[float], random: Random) -> int:
    """One of the rates, by their weights where there are any."""
    return random.choices(rates, weights or None)[0]


def at_rate(kind: LatentKind, rate: int) -> LatentKind:
    """The same kind at another rate, where it has several."""
    return replace(kind, rate=rate) if isinstance(kind, PooledKind) else kind
