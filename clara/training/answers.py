"""What a model says while it learns: dev questions answered, and compared with the gold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clara.evaluation.batches import batches
from clara.evaluation.metrics import AnswerScore, recall, score_answer
from clara.model.backbone import Backbone
from clara.model.models import generator_of
from clara.model.scoring import score
from clara.training.compression import laid_out
from clara.training.config import EndToEndConfig, InstructionConfig, StageConfig
from clara.training.records import CompressionRecord, QuestionRecord, Record
from clara.training.stages import cut_documents
from clara.training.together import Together
from clara.training.trainee import Trainee


@dataclass(frozen=True)
class Asked:
    """A question whose answer is known."""

    question: str
    documents: Sequence[str]
    """Those that are read; in the last stage, those that are chosen from."""
    answer: str
    positives: Sequence[int]


@dataclass(frozen=True)
class _Read:
    """A question with what the generator is given."""

    asked: Asked
    prompt: Tensor
    """(tokens, width)."""
    order: Sequence[int]
    """Documents, the best first; nothing where none is chosen."""


class Answers:
    """Greedy answers of the model as it is, without merging or saving anything.

    Args:
        trainee: that answers, at its checkpoint's rate.
        config: of the stage; its `length` says how many records and how long answers.
        records: the dev records; of stage 1, the first question of each that has one.
        together: processes that share the work, where there are several.
    """

    def __init__(
        self,
        trainee: Trainee,
        config: StageConfig,
        records: Sequence[Record],
        *,
        together: Together | None = None,
    ) -> None:
        self._trainee, self._config = trainee, config
        self._together = together or Together()
        self._top_k = int(getattr(config, "generation_top_k", 1))
        self._asked = list(_questions(records))[: config.length.eval_gen_records]
        backbone = Backbone(trainee.model, trainee.tokens, Path())
        self._generator = generator_of(trainee.model, backbone, trainee.config)

    def scores(self) -> dict[str, float]:
        """Means of `cover_em`, `em` and `f1`; of the last stage also recall@k of the choice.

        Nothing where no record has a question.
        """
        if not self._asked:
            return {}
        self._trainee.eval()
        try:
            with torch.no_grad():
                return self._means(list(self._answered(self._together.mine(self._asked))))
        finally:
            self._trainee.train()

    def _means(self, found: Sequence[tuple[_Read, AnswerScore]]) -> dict[str, float]:
        known = [read for read, _ in found if read.order and read.asked.positives]
        sums = {
            "cover_em": float(sum(scored.cover_em for _, scored in found)),
            "em": float(sum(scored.em for _, scored in found)),
            "f1": sum(scored.f1 for _, scored in found),
            "recall": sum(recall(r.order, r.asked.positives, self._top_k) for r in known),
            "known": float(len(known)),
        }
        total = self._together.sums(sums)
        means = {name: total[name] / len(self._asked) for name in ("cover_em", "em", "f1")}
        if total["known"]:
            means[f"recall@{self._top_k}"] = total["recall"] / total["known"]
        return means

    def _answered(self, asked: Sequence[Asked]) -> Iterator[tuple[_Read, AnswerScore]]:
        reads = [self._read(one) for one in asked]
        longest = self._config.length.eval_gen_tokens
        lengths = [len(read.prompt) + longest for read in reads]
        answered = [i for i, read in enumerate(reads) if len(read.prompt) < self._generator.context]
        for i in set(range(len(reads))) - set(answered):  # no room for an answer is a wrong one
            yield reads[i], AnswerScore(em=False, cover_em=False, f1=0.0)
        for some in batches([lengths[i] for i in answered], self._trainee.most_tokens):
            group = [answered[i] for i in some]
            with self._trainee.switch.on("generator"):
                answers = self._generator.generate(
                    [reads[i].prompt for i in group], max_new_tokens=longest
                )
            for i, ids in zip(group, answers, strict=True):
                said = self._generator.text_of(ids)
                yield reads[i], score_answer(said, reads[i].asked.answer)

    def _read(self, asked: Asked) -> _Read:
        documents = asked.documents
        if isinstance(self._config, InstructionConfig) and self._config.text_share == 1:
            return _Read(asked, self._generator.prompt_from_text(asked.question, documents), ())
        blocks = self._blocks("compressor", documents)
        order: list[int] = []
        if isinstance(self._config, EndToEndConfig):
            (query,) = self._blocks("reasoner", [asked.question])
            scores = score(self._trainee.kind("compressor"), query, blocks)
            order = scores.argsort(descending=True).tolist()
            blocks = [blocks[i] for i in order[: self._top_k]]
        return _Read(asked, self._generator.prompt_from_latents(asked.question, blocks), order)

    def _blocks(self, role: str, texts: Sequence[str]) -> list[Tensor]:
        tokens, kind = self._trainee.tokens, self._trainee.kind(role)
        ids = [laid_out(tokens, kind, row) for row in cut_documents(tokens, texts)]
        return self._trainee.compress(role, ids)[0]


def _questions(records: Sequence[Record]) -> Iterator[Asked]:
    for record in records:
        if isinstance(record, QuestionRecord):
            yield Asked(record.question, record.documents, record.answer, record.positives)
        elif isinstance(record, CompressionRecord) and record.pairs:
            question, answer = record.pairs[0]
            yield Asked(question, (record.document,), answer, ())
