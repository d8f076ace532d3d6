"""Stage 3: the query reasoner chooses, the generator answers. arXiv:2511.18659, section 3.3.

One loss for both: the answer's. It reaches the query latent through the differentiable top-k.
The compressor does not change, so latents made before this stage stay good. Beside it or instead of
it there can be a contrastive loss on the documents that hold the answer: alone it needs a pass over
the question and nothing else, so small bases with few records learn to rank in minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import pad as padded

from clara.model.kinds import LatentKind
from clara.model.scoring import score
from clara.model.tokens import Tokens
from clara.model.topk import select
from clara.training import losses
from clara.training.compression import laid_out
from clara.training.config import EndToEndConfig
from clara.training.records import QuestionRecord
from clara.training.stages import Sums, cut_documents, target
from clara.training.target import Target
from clara.training.trainee import Trainee


@dataclass(frozen=True)
class Choice:
    """A question, its candidates, and the answer to learn."""

    id: str
    question: str
    answer: str
    asked: tuple[int, ...]
    """The question as the query reasoner reads it."""
    candidates: tuple[tuple[int, ...], ...]
    """Documents as the compressor reads them."""
    positives: tuple[int, ...]
    rate: int
    labels: int
    """Tokens of the answer."""

    @cached_property
    def places(self) -> int:
        """Token places; candidates need no gradient and count a third."""
        return len(self.asked) + self.labels + sum(map(len, self.candidates)) // 3

    @property
    def counts(self) -> Mapping[str, int]:
        """Answer tokens; questions of which a positive is known."""
        return {"answer": self.labels, "retrieval": int(bool(self.positives))}


@dataclass(frozen=True)
class EndToEnd:
    """Objective of stage 3."""

    config: EndToEndConfig
    tokens: Tokens
    kind: LatentKind
    rates: tuple[int, ...]

    @property
    def learning(self) -> tuple[str, ...]:
        """The generator too, unless nothing is generated."""
        return ("reasoner", "generator") if self.config.answer_weight else ("reasoner",)

    @property
    def weights(self) -> Mapping[str, float]:
        """The answer's loss; the contrastive one where it is asked for."""
        return {
            "answer": self.config.answer_weight,
            "retrieval": self.config.retrieval_weight,
        }

    def example(self, record: QuestionRecord, random: Random) -> Choice | None:
        """A question with all of its candidates."""
        rate = random.choice(self.rates)
        asked, *documents = (
            tuple(laid_out(self.tokens, self.kind, row))
            for row in cut_documents(self.tokens, [record.question, *record.documents])
        )
        found = self._target(record.question, record.answer, [1])
        if found is None:
            return None
        labels = len(found[0]) - found[1]
        return Choice(
            record.id,
            record.question,
            record.answer,
            asked,
            tuple(documents),
            record.positives,
            rate,
            labels,
        )

    def __call__(self, trainee: Trainee, examples: Sequence[Choice]) -> Sums:
        """Answer loss through the selection, and the contrastive loss."""
        targets, scores, positive = [], [], []
        most = max(len(example.candidates) for example in examples)
        for example in examples:
            blocks, row = self._scored(trainee, example)
            if self.config.answer_weight:
                ids, prompt, chosen = self._chosen(example, blocks, row)
                targets.append(Target(ids, prompt, chosen))
            scores.append(padded(row, (0, most - len(row)), value=-torch.inf))
            gold = [i in example.positives for i in range(most)]
            positive.append(torch.tensor(gold, device=row.device))
        retrieval = losses.retrieval_nll(
            torch.stack(scores), torch.stack(positive), temperature=self.config.temperature
        )
        answer = retrieval.new_zeros(())
        if targets:
            answer = losses.answer_nll(trainee.answers(targets), trainee.labels(targets))
        return {"answer": answer, "retrieval": retrieval}

    def _scored(self, trainee: Trainee, example: Choice) -> tuple[list[Tensor], Tensor]:
        """Candidates' blocks, without gradient, and their scores (candidates,)."""
        with torch.no_grad():
            blocks, _ = trainee.compress("compressor", example.candidates, rate=example.rate)
        (query,), _ = trainee.compress("reasoner", [example.asked], rate=example.rate)
        return blocks, score(trainee.kind("compressor", example.rate), query, blocks)

    def _chosen(
        self, example: Choice, blocks: Sequence[Tensor], scores: Tensor
    ) -> tuple[list[int], int, list[Tensor]]:
        """The prompt for the chosen blocks, and the blocks, which carry the scores' gradient."""
        k = min(self.config.generation_top_k, len(blocks))
        weights, chosen = select(scores.unsqueeze(0), k, temperature=self.config.temperature)
        rows = [len(blocks[i]) for i in chosen[0].tolist()]
        longest = max(len(block) for block in blocks)
        stacked = torch.stack([padded(b.float(), (0, 0, 0, longest - len(b))) for b in blocks])
        mixed = torch.einsum("kn,nrw->krw", weights[0], stacked)
        found = self._target(example.question, example.answer, rows)
        if found is None:  # the answer fitted behind one row; it does not behind all of them
            found = self._target(example.question, example.answer, rows, uncut=True)
        assert found is not None  # noqa: S101 - an uncut target has its answer
        return *found, [mixed[j, :count] for j, count in enumerate(rows)]

    def _target(
        self, question: str, answer: str, rows: Sequence[int], *, uncut: bool = False
    ) -> tuple[list[int], int] | None:
        prompts = self.tokens.prompts
        longest = 1_000_000 if uncut else self.config.max_len
        return target(
            self.tokens,
            prompts.from_latents(question, rows),
            prompts.from_latents(question, rows, answer),
            longest,
        )
