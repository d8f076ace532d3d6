"""The opening that all prompts of one kind share: computed once, and kept as keys and values.

A question over five latents of 16 rows has some 150 tokens, and a quarter of them are the same
words every time: system message, chat template, `Background:`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from clara.model.backbone import keeping

MOST_REST = 10
"""Times as many tokens may follow. What follows kept keys is masked row by row, which costs more in
a long prompt than the opening saves: at 37 tokens 1.22 times sooner with 110 behind it, 1.04 with
365, but 0.92 with 660 (BENCHMARKS.md, model library)."""


@dataclass(frozen=True)
class Opening:
    """Embeddings of an opening, and what every layer keeps of it."""

    embeds: Tensor
    """(tokens, width)."""
    layers: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values (1, heads, tokens, size) by layer."""

    def shared(self, prompts: Sequence[Tensor]) -> int:
        """Tokens that all prompts (tokens, width) begin with; each keeps one of its own."""
        most = min(len(self.embeds), *(len(prompt) - 1 for prompt in prompts))
        same = torch.stack([(p[:most] == self.embeds[:most]).all(dim=1) for p in prompts])
        return int(same.all(dim=0).int().cumprod(dim=0).sum())

    def worth(self, prompts: Sequence[Tensor]) -> int:
        """The same where it pays, else 0."""
        tokens = self.shared(prompts)
        longest = max(len(prompt) for prompt in prompts) - tokens
        return tokens if longest <= MOST_REST * tokens else 0

    def fill(self, cache: DynamicCache, tokens: int, batch: int) -> None:
        """Put the first tokens of it in front of everything else in an empty cache."""
        for number, (keys, values) in enumerate(self.layers):
            cache.update(
                keys[:, :, :tokens].expand(batch, -1, -1, -1),
                values[:, :, :tokens].expand(batch, -1, -1, -1),
                number,
            )


@dataclass(frozen=True)
class Openings:
    """The opening of each model that reads prompts, computed when it is first asked for.

    The models must not change afterwards. Safe to share between threads.
    """

    embeds: Tensor
    """(tokens, width): of the words that prompts open with."""
    _found: dict[int, tuple[PreTrainedModel, Opening | None]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, model: PreTrainedModel) -> Opening | None:
        """The opening as this model reads it; None where its layers keep less than all of it."""
        with self._lock:
            if id(model) not in self._found:
                self._found[id(model)] = model, _read(model, self.embeds)
            return self._found[id(model)][1]


def _read(model: PreTrainedModel, embeds: Tensor) -> Opening | None:
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        trunk = model.base_model
        trunk(inputs_embeds=embeds.unsqueeze(0), **keeping(trunk, cache))
    layers = []
    for layer in cache.layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        # attention over a short window, or no attention at all, keeps something else
        if keys is None or values is None or keys.shape[-2] != len(embeds):
            return None
        layers.append((keys, values))
    return Opening(embeds, tuple(layers))
