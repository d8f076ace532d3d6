"""Question -> query latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clara.errors import QuestionTooLong, TextTooLong
from clara.model.backbone import memory_states
from clara.model.tokens import Tokens


@dataclass(frozen=True)
class QueryReasoner:
    """The base with the query reasoner's adapter, without its head. arXiv:2511.18659.

    A question is laid out like a passage, so its latent lies in the passages' space.
    """

    trunk: nn.Module
    tokens: Tokens

    def encode(self, questions: Sequence[str]) -> Tensor:
        """Query latents (questions, rows, width), float32, on the CPU.

        Raises:
            EmptyText: a question of white space only.
            QuestionTooLong: a question of more than `doc_max_length` tokens.
        """
        ids = self._ids(questions)
        with torch.inference_mode():
            states = memory_states(self.trunk, ids, n_mem=self.tokens.n_mem, pad=self.tokens.pad)
            together = torch.stack(states).to("cpu", torch.float32)
        return together.clone()

    def _ids(self, questions: Sequence[str]) -> list[list[int]]:
        try:
            return self.tokens.compressor_ids(questions)
        except TextTooLong as error:
            raise QuestionTooLong(
                error.message.replace("text", "question", 1),
                field=error.field,
                limit=error.limit,
                remedy="Ask in fewer words",
            ) from error
