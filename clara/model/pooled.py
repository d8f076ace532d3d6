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
from torch.nn.utils.rnn import pad_sequence

from clara.errors import InvalidCheckpoint
from clara.model.backbone import filled
from clara.model.kinds import States, cosine
from clara.model.tokens import Tokens
from clara.model.windows import WAVES, pooled

WRAPPING = (2, 1)
"""Ids before and behind the text in `Tokens.wrapped`; they are not pooled."""

TENSORS = ("weights", "gate", "order")
"""What a checkpoint keeps of a pooled role."""

LEAST_IDF = 0.1
"""Weight of a token that every passage has."""

NUMERAL_IDF = 6.0
"""Least weight of a digit or number at the beginning: that of a word in one passage of 400."""

INITIAL_ORDER = 0.4
"""Of what an untrained token's factors differ from 1 at the ends of its window, by wave."""


@dataclass(frozen=True)
class Pooling:
    """What a pooled role has learned, apart from its adapter; all float32."""

    weights: Tensor
    """(vocabulary,): logarithm of what each token counts."""
    gate: Tensor
    """(width,): how much of each contextual state comes in; zeros mean none."""
    order: Tensor
    """(waves, width): how a token's state depends on its place in the window; zeros: not at all."""

    def tensors(self) -> dict[str, Tensor]:
        """By name, as a checkpoint keeps them."""
        return {"weights": self.weights, "gate": self.gate, "order": self.order}


@dataclass(frozen=True)
class Middle:
    """Where a base's embedding lies, and how far its rows are from there; float32."""

    mean: Tensor
    """(width,): mean row."""
    size: Tensor
    """Scalar: root mean square of one number of a row, the mean taken off."""


@dataclass(frozen=True)
class PooledKind:
    """Token states, weighted and summed over windows of about `rate` tokens; a row for each."""

    tokens: Tokens
    rate: int
    pooling: Pooling
    embedding: Tensor
    """(vocabulary, width) of the base."""
    middle: Middle
    contextual: bool
    """Whether the gate may be open; without it no pass through the model is needed."""
    late: bool = False
    """Compare token by token (arXiv:2004.12832), and not by the mean row."""
    asks: bool = False
    """Where `late`: whether this makes query latents, a row per token, as long as it counts."""

    def ids(self, texts: Sequence[str], *, cut: bool = False) -> list[list[int]]:
        """`<ENC>` bos text eos; of a text that was cut, the last id is not pooled either."""
        return self.tokens.passage_ids(texts, cut=cut)

    def rows(self, sequence: Sequence[int]) -> int:
        """One for every window of the text; of a late question, one for every token."""
        if self.asks:
            return len(sequence) - sum(WRAPPING)
        return math.ceil((len(sequence) - sum(WRAPPING)) / self.rate)

    def blocks(self, states: States, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Blocks (tokens of the text / rate, rounded up; width), around zero."""
        inner = [row[WRAPPING[0] : len(row) - WRAPPING[1]] for row in sequences]
        ids = filled(inner, self.tokens.pad).to(self.embedding.device)
        lengths = torch.tensor([len(row) for row in inner], device=ids.device)
        there = torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)
        token_states = self.embedding[ids].float() - self.middle.mean
        if self.contextual:
            seen = [found[WRAPPING[0] : -WRAPPING[1]] for found in states(sequences)]
            context = _unit(pad_sequence(seen, batch_first=True).float())
            token_states = token_states + self.pooling.gate * self.middle.size * context
        weights = self.pooling.weights[ids].exp() * there
        if self.asks:
            counted = weights.unsqueeze(-1) * _length_one(token_states)
            return [counted[i, : self.rows(row)] for i, row in enumerate(sequences)]
        rows = pooled(token_states, weights, lengths, self.rate, self.pooling.order)
        rows = rows.to(self.embedding.dtype)
        return [rows[i, : self.rows(row)] for i, row in enumerate(sequences)]

    def vector(self, block: Tensor) -> Tensor:
        """The mean row: (width,). So blocks of different lengths and rates can be compared."""
        return block.float().mean(dim=0)

    def compare(self, query: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """Cosines of mean rows; or, `late`, the mean over a question's tokens of the best cosine.

        A mean over a hundred rows is mostly what every passage has. Row by row a name in the
        question meets the one row that holds it.
        """
        if not self.late:
            return cosine(self.vector(query), torch.stack([self.vector(b) for b in blocks]))
        rows = torch.cat(list(blocks)).float()
        lengths = rows.norm(dim=1, keepdim=True).clamp(min=_LEAST)
        found = torch.split(rows @ query.to(rows).T / lengths, [len(block) for block in blocks])
        best: Tensor = torch.stack([part.amax(dim=0) for part in found]).sum(dim=1)
        total: Tensor = query.float().norm(dim=1).sum()
        return best / total.clamp(min=_LEAST)


def middle_of(embedding: Tensor, base_size: int) -> Middle:
    """Of the base's own tokens."""
    own = embedding[:base_size].detach().float()
    mean = own.mean(dim=0)
    return Middle(mean, (own - mean).square().mean().sqrt())


def initial_pooling(
    texts: Iterable[Sequence[int]],
    *,
    vocabulary: int,
    width: int,
    numerals: Sequence[int] = (),
) -> Pooling:
    """Weights at inverse document frequency, and a closed gate.

    Digits are an exception: each of the ten is in every third passage, and the number they make up
    is in one. By their frequency "2009" weighed less than "the shop", and was lost.

    Args:
        texts: token ids of passages; more of them, better frequencies.
        vocabulary: rows of the embedding.
        width: of one hidden state.
        numerals: ids of digits and numbers, which weigh at least `NUMERAL_IDF`.
    """
    seen: Counter[int] = Counter()
    total = 0
    for ids in texts:
        seen.update(set(ids))
        total += 1
    frequency = torch.tensor([seen[token] for token in range(vocabulary)], dtype=torch.float32)
    idf = torch.log((total + 1) / (frequency + 1)).clamp(min=LEAST_IDF)
    idf[list(numerals)] = idf[list(numerals)].clamp(min=NUMERAL_IDF)
    signs = torch.randint(0, 2, (len(WAVES), width), generator=torch.Generator().manual_seed(0))
    order = INITIAL_ORDER * (2.0 * signs - 1)
    return Pooling(weights=idf.log(), gate=torch.zeros(width), order=order)


def check_pooling(tensors: Mapping[str, Tensor], role: str, *, vocabulary: int, width: int) -> None:
    """Raises InvalidCheckpoint unless pooling weights have the shapes a base needs.

    Args:
        tensors: what a checkpoint keeps of `role`.
        role: whose they are, for the message.
        vocabulary: rows of the embedding, with the added tokens.
        width: of one hidden state.
    """
    for name, wanted in (
        ("weights", (vocabulary,)),
        ("gate", (width,)),
        ("order", (len(WAVES), width)),
    ):
        shape = tuple(tensors[name].shape)
        if shape != wanted:
            raise InvalidCheckpoint(
                f"the {role}'s pooling {name} has shape {shape}; the base needs {wanted}",
                field=f"{role}.pooling.{name}",
                remedy="Use the base this checkpoint was trained on",
            )


def pooling_from(tensors: Mapping[str, Tensor], device: torch.device) -> Pooling:
    """What a checkpoint keeps of one role."""
    kept = {name: tensors[name].to(device, torch.float32) for name in TENSORS}
    return Pooling(**kept)


_LEAST = 1e-6
"""Keeps a question of no weight from dividing by 0."""


def _length_one(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def _unit(states: Tensor) -> Tensor:
    return states / (states.square().mean(dim=-1, keepdim=True).sqrt() + 1e-6)
