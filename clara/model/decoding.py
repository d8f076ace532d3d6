"""One batch of prompts on its way through the model, a token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from clara.model.backbone import embedding_of, head_of, keeping
from clara.model.opening import Opening
from clara.model.sampling import Sampling, choose


@dataclass(frozen=True, slots=True)
class Lowered:
    """A token that begins an answer only where it leads every other by more than so much."""

    token: int
    nats: float


class Decoding:
    """A cache, and the next step's input. Prompts are filled on the left.

    Args:
        model: causal language model.
        prompts: input embeddings (tokens, width), of any lengths.
        sampling: how ids are chosen.
        opening: of this model; what the prompts begin with in common is not computed again.
        lowered: the first id of each answer is chosen with this one's logit lowered.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Tensor],
        sampling: Sampling,
        opening: Opening | None = None,
        lowered: Lowered | None = None,
    ) -> None:
        lengths = [len(prompt) for prompt in prompts]
        longest = max(lengths)
        known = 0 if opening is None else opening.worth(prompts)
        self._model = model
        self._lowered = lowered
        self._temperature = sampling.temperature
        self._sources = sampling.sources(len(prompts))
        self._cache = DynamicCache(config=model.config)
        if opening is not None and known:
            opening.fill(self._cache, known, len(prompts))
        rest = [prompt[known:] for prompt in prompts]
        self._embeds = torch.stack([_left_filled(prompt, longest - known) for prompt in rest])
        self._next = torch.tensor(lengths, device=self._embeds.device)
        self._mask: Tensor | None = None
        if min(lengths) < longest:  # filled between the opening and the rest
            columns = torch.arange(longest, device=self._embeds.device)
            own = columns >= known + (longest - self._next).unsqueeze(1)
            self._mask = (own | (columns < known)).long()

    def step(self) -> list[int]:
        """The next id of every prompt. Only the last position goes through the head."""
        with torch.inference_mode():
            trunk = self._model.base_model
            hidden = trunk(
                inputs_embeds=self._embeds,
                attention_mask=self._mask,
                position_ids=self._positions(),
                **keeping(trunk, self._cache),
            ).last_hidden_state[:, -1]
            logits = head_of(self._model)(hidden)
            if self._lowered is not None:
                logits[:, self._lowered.token] -= self._lowered.nats
                self._lowered = None
            ids = choose(logits, self._temperature, self._sources)
            self._advance(ids)
        found: list[int] = ids.tolist()
        return found

    def _positions(self) -> Tensor | None:
        """Positions count from each prompt's own first token; None where all are equally long."""
        if self._mask is None:
            return None
        if self._embeds.shape[1] == 1:
            return self._next.unsqueeze(1) - 1
        counted = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        return counted[:, -self._embeds.shape[1] :]

    def _advance(self, ids: Tensor) -> None:
        self._embeds = embedding_of(self._model)(ids).unsqueeze(1)
        self._next = self._next + 1
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)


def _left_filled(prompt: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(prompt, (0, 0, length - len(prompt), 0))
