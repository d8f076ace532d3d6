"""The plain way: what the original does with a checkpoint, to measure ours against.

Adapters stay beside the weights and are switched; every passage is padded to the maximum; the head
runs on every position and the states of all layers are kept; the candidates of a question are
compressed again each time. Where the published code leaves a choice, the cheaper one is taken: no
cache while compressing, answers by the library's own `generate`, which uses the head once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from clara.model.backbone import Backbone
from clara.model.generator import Generator
from clara.model.kinds import cosine
from clara.model.lora import ALPHA_PER_RANK, Adapter, block_linears
from clara.model.tokens import Tokens
from clara.training.adapters import Switch


class Unmerged(nn.Module):
    """A linear layer that adds the low-rank change of the active role at every call."""

    def __init__(
        self, base: nn.Linear, sides: Mapping[str, tuple[Tensor, Tensor]], switch: Switch
    ) -> None:
        super().__init__()
        self.base = base
        self._sides = sides
        self._switch = switch

    def forward(self, states: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        found: Tensor = self.base(states)
        if self._switch.role is None:
            return found
        down, up = self._sides[self._switch.role]
        return found + linear(linear(states, down), up) * ALPHA_PER_RANK


@dataclass(frozen=True)
class Chosen:
    """What the plain way found for one question."""

    scores: Tensor
    """(candidates,)."""
    positions: list[int]
    """Of the candidates read, best first."""
    token: int
    """First of the answer."""


@dataclass(frozen=True)
class Plain:
    """One model for three roles."""

    model: PreTrainedModel
    switch: Switch
    tokens: Tokens
    prompts: Generator
    """Only for its prompts; the weights it answers with are not used."""
    batch: int
    """Passages compressed together, where the number is free."""

    def compress(self, passages: Sequence[str]) -> list[Tensor]:
        """Latents (n_mem, width), in the order of the passages, on the CPU."""
        found: list[Tensor] = []
        for first in range(0, len(passages), self.batch):
            found += self.latents(passages[first : first + self.batch], "compressor").cpu()
        return found

    def choose(self, question: str, candidates: Sequence[str], top_k: int) -> Chosen:
        """Compress all candidates as one batch, choose among them and begin the answer."""
        latents = self.latents(candidates, "compressor")
        query = self.latents([question], "reasoner")
        scores = cosine(query.flatten(1), latents.flatten(1))
        best = scores.topk(top_k).indices.tolist()
        prompt = self.prompts.prompt_from_latents(question, [latents[i] for i in best])
        return Chosen(scores.cpu(), best, self._first_token(prompt))

    def latents(self, texts: Sequence[str], role: str) -> Tensor:
        """Of all texts as one batch: (texts, n_mem, width), on the device."""
        ids, mask = self._padded(texts)
        with torch.inference_mode(), self.switch.on(role):
            found = self.model(
                input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
            )
        states: Tensor = found.hidden_states[-1]
        return states[:, -self.tokens.n_mem :]

    def _padded(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (texts, longest possible), filled on the left."""
        tokens, device = self.tokens, self.model.device
        length = tokens.doc_max_length + 3
        rows = tokens.passage_ids(texts, cut=True)
        ids = [[*[tokens.pad] * (length - len(row)), *row, *tokens.memory] for row in rows]
        mask = [[0] * (length - len(row)) + [1] * (len(row) + tokens.n_mem) for row in rows]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _first_token(self, prompt: Tensor) -> int:
        embeds = prompt.unsqueeze(0)
        with torch.inference_mode(), self.switch.on("generator"):
            found: Tensor = cast(Any, self.model).generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones(embeds.shape[:2], device=embeds.device).long(),
                max_new_tokens=1,
                do_sample=False,
                pad_token_id=self.tokens.pad,
            )
        return int(found[0, -1])


def plain_way(
    backbone: Backbone, adapters: Mapping[str, Adapter], prompts: Generator, *, batch: int
) -> Plain:
    """Wrap the layers of a base of its own; the base is changed."""
    switch, model = Switch(), backbone.model
    if model.config._attn_implementation != "eager":
        model.set_attn_implementation("sdpa")  # what the original gets, whatever we chose for us
    for path, layer in block_linears(model).items():
        parent, _, name = path.rpartition(".")
        wrapped = Unmerged(layer, dict(_sides(adapters, path, layer.weight)), switch)
        setattr(model.get_submodule(parent), name, wrapped)
    return Plain(model, switch, backbone.tokens, prompts, batch)


def _sides(
    adapters: Mapping[str, Adapter], path: str, weight: Tensor
) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    for role, adapter in adapters.items():
        down, up = (adapter[f"{path}.lora_{side}.weight"].to(weight) for side in "AB")
        yield role, (down, up)
