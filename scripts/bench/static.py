"""Decoding with a cache of fixed size, as torch.compile wants it; a try, to compare with ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from clara.model.backbone import embedding_of, head_of, keeping

Forward = Callable[..., Any]


class StaticDecoding:
    """One prompt on its way through the model, greedily; the first id comes with the prompt.

    Args:
        model: causal language model.
        prompt: input embeddings (tokens, width).
        most: ids to come, at most.
        forward: runs the steps after the prompt in place of the model without its head.
    """

    def __init__(
        self, model: PreTrainedModel, prompt: Tensor, most: int, forward: Forward | None = None
    ) -> None:
        self._model = model
        whole = cast(Forward, model.base_model)
        self._forward = whole if forward is None else forward
        length = len(prompt)
        self._cache = StaticCache(config=model.config, max_cache_len=length + most)
        self._position = torch.full((1, 1), length, device=prompt.device)
        with torch.inference_mode():
            self._id = self._next(whole, prompt.unsqueeze(0), None)
        self.first = int(self._id)
        """The id that came with the prompt."""

    def step(self) -> int:
        """The next id."""
        with torch.inference_mode():
            embeds = embedding_of(self._model)(self._id).unsqueeze(1)
            self._id = self._next(self._forward, embeds, self._position)
            self._position = self._position + 1
        return int(self._id)

    def _next(self, forward: Forward, embeds: Tensor, position: Tensor | None) -> Tensor:
        states = forward(
            inputs_embeds=embeds,
            position_ids=position,
            **keeping(self._model.base_model, self._cache),
        ).last_hidden_state
        found: Tensor = head_of(self._model)(states[:, -1]).argmax(dim=-1)
        return found
