"""Question -> query latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from clara.errors import QuestionTooLong, TextTooLong
from clara.model.backbone import hidden_states
from clara.model.compressor import groups
from clara.model.kinds import LatentKind


@dataclass(frozen=True)
class QueryReasoner:
    """The base with the query reasoner's adapter, without its head. arXiv:2511.18659.

    A question is laid out like a passage, so its latent lies in the passages' space.
    """

    trunk: nn.Module
    kind: LatentKind
    pad: int
    max_batch_tokens: int
    """Most token places, filling included, of one pass."""

    def encode(self, questions: Sequence[str]) -> list[Tensor]:
        """One query latent (rows, width) per question, float32, on the CPU.

        Raises:
            EmptyText: a question of white space only.
            QuestionTooLong: a question of more than `doc_max_length` tokens.
        """
        ids = self._ids(questions)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: dict[int, Tensor] = {}
        for group in groups(order, [len(row) for row in ids], self.max_batch_tokens):
            found.update(zip(group, self._run([ids[i] for i in group]), strict=True))
        return [found[position] for position in range(len(ids))]

    def _run(self, ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """One pass."""
        with torch.inference_mode():
            states = partial(hidden_states, self.trunk, pad=self.pad)
            blocks = self.kind.blocks(states, ids)
            together = torch.cat(blocks).to("cpu", torch.float32)
        return [block.clone() for block in torch.split(together, [len(block) for block in blocks])]

    def _ids(self, questions: Sequence[str]) -> list[list[int]]:
        try:
            return self.kind.ids(questions)
        except TextTooLong as error:
            raise QuestionTooLong(
                error.message.replace("text", "question", 1),
                field=error.field,
                limit=error.limit,
                remedy="Ask in fewer words",
            ) from error
