"""Latents as weighted means of what the generator reads anyway: token states over windows.

Mean pooling for many rates with one compressor is arXiv:2510.20797. What is added here, and why:

- A token counts by a learned weight that starts at its inverse document frequency. A plain mean
  of sixteen tokens is mostly articles and commas.
- The mean embedding is taken off before pooling and given back where the generator reads. In
  SmolLM2 it is two thirds of a token's length: left in, it would grow with the window and drown
  the difference between two passages.
- The contextual states of the compressor come in through a gate that starts closed, so training
  begins at something the generator can already tell apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad as padded

from clara.errors import InvalidCheckpoint
from clara.model.kinds import States
from clara.model.tokens import Tokens

WRAPPING = (2, 1)
"""Ids before and behind the text in `Tokens.wrapped`; they are not pooled."""

LEAST_IDF = 0.1
"""Weight of a token that every passage has."""


@dataclass(frozen=True)
class Pooling:
    """What a pooled role has learned, apart from its adapter; all float32."""

    weights: Tensor
    """(vocabulary,): logarithm of what each token counts."""
    gate: Tensor
    """(width,): how much of each contextual state comes in; zeros mean none."""

    def tensors(self) -> dict[str, Tensor]:
        """By name, as a checkpoint keeps them."""
        return {"weights": self.weights, "gate": self.gate}


@dataclass(frozen=True)
class PooledKind:
    """Token states, weighted and summed over windows of `rate` tokens; a row for each window."""

    tokens: Tokens
    rate: int
    pooling: Pooling
    embedding: Tensor
    """(vocabulary, width) of the base."""
    center: Tensor
    """(width,), float32: `center_of` the embedding."""
    contextual: bool
    """Whether the gate may be open; without it no pass through the model is needed."""

    def ids(self, texts: Sequence[str], *, cut: bool = False) -> list[list[int]]:
        """`<ENC>` bos text eos; of a text that was cut, the last id is not pooled either."""
        return self.tokens.passage_ids(texts, cut=cut)

    def rows(self, sequence: Sequence[int]) -> int:
        """One for every window of the text."""
        return math.ceil((len(sequence) - sum(WRAPPING)) / self.rate)

    def blocks(self, states: States, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Blocks (tokens of the text / rate, rounded up; width), around zero, not `center`."""
        context = states(sequences) if self.contextual else [None] * len(sequences)
        return [self._block(row, seen) for row, seen in zip(sequences, context, strict=True)]

    def vector(self, block: Tensor) -> Tensor:
        """The mean row: (width,). So blocks of different lengths and rates can be compared."""
        return block.float().mean(dim=0)

    def _block(self, row: Sequence[int], context: Tensor | None) -> Tensor:
        inner = slice(WRAPPING[0], len(row) - WRAPPING[1])
        ids = torch.tensor(row[inner], device=self.embedding.device)
        states = self.embedding[ids].float() - self.center
        if context is not None:
            size = states.detach().square().mean().sqrt()
            states = states + self.pooling.gate * size * _unit(context[inner].float())
        weights = self.pooling.weights[ids].exp()
        return windows(states, weights, self.rate).to(self.embedding.dtype)


def windows(states: Tensor, weights: Tensor, rate: int) -> Tensor:
    """Weighted sums over windows of `rate` tokens, divided by the root of the squared weights.

    So a row keeps the length of one token's state while the states differ, whatever the window.

    Args:
        states: (tokens, width).
        weights: (tokens,), positive.
        rate: tokens per window; the last window may have fewer.
    Returns:
        (tokens / rate, rounded up; width).
    """
    rows = math.ceil(len(states) / rate)
    missing = rows * rate - len(states)
    spread = padded(weights, (0, missing)).view(rows, rate, 1)
    summed = (padded(states, (0, 0, 0, missing)).view(rows, rate, -1) * spread).sum(dim=1)
    return summed / spread.square().sum(dim=1).sqrt()


def center_of(embedding: Tensor, base_size: int) -> Tensor:
    """Mean row (width,) of the base's own tokens, float32."""
    return embedding[:base_size].detach().float().mean(dim=0)


def initial_pooling(texts: Iterable[Sequence[int]], *, vocabulary: int, width: int) -> Pooling:
    """Weights at inverse document frequency, and a closed gate.

    Args:
        texts: token ids of passages; more of them, better frequencies.
        vocabulary: rows of the embedding.
        width: of one hidden state.
    """
    seen: Counter[int] = Counter()
    total = 0
    for ids in texts:
        seen.update(set(ids))
        total += 1
    frequency = torch.tensor([seen[token] for token in range(vocabulary)], dtype=torch.float32)
    idf = torch.log((total + 1) / (frequency + 1)).clamp(min=LEAST_IDF)
    return Pooling(weights=idf.log(), gate=torch.zeros(width))


def check_pooling(tensors: Mapping[str, Tensor], role: str, *, vocabulary: int, width: int) -> None:
    """Raises InvalidCheckpoint unless pooling weights have the shapes a base needs.

    Args:
        tensors: what a checkpoint keeps of `role`.
        role: whose they are, for the message.
        vocabulary: rows of the embedding, with the added tokens.
        width: of one hidden state.
    """
    for name, wanted in (("weights", (vocabulary,)), ("gate", (width,))):
        shape = tuple(tensors[name].shape)
        if shape != wanted:
            raise InvalidCheckpoint(
                f"the {role}'s pooling {name} has shape {shape}; the base needs {wanted}",
                field=f"{role}.pooling.{name}",
                remedy="Use the base this checkpoint was trained on",
            )


def pooling_from(tensors: Mapping[str, Tensor], device: torch.device) -> Pooling:
    """What a checkpoint keeps of one role."""
    kept = {name: tensors[name].to(device, torch.float32) for name in ("weights", "gate")}
    return Pooling(**kept)


def _unit(states: Tensor) -> Tensor:
    return states / (states.square().mean(dim=-1, keepdim=True).sqrt() + 1e-6)
