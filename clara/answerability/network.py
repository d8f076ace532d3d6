"""An encoder with two heads that reads a question and a passage, or several as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_TOKENS = 512
"""Of a question and what is read for it: two passages of the default length."""

ROLE = "answerability"
"""Name of the adapter, where an encoder could have several."""

_OUTSIDE = -1e4
"""Logit of places where no answer can stand."""


@dataclass(frozen=True)
class Pair:
    """A question and a passage, as they are read."""

    ids: Sequence[int]
    kinds: Sequence[int] | None
    """By token, 1 where the passage is; None for encoders that do not tell the two apart so."""
    passage: tuple[int, int]
    """First token of the passage, and the one behind its last."""
    offsets: Sequence[tuple[int, int]]
    """Where each token stands in its text, in characters."""


class Heads(nn.Module):
    """What is told from an encoder's states, in float32.

    Args:
        width: of the states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.answers = nn.Linear(width, 1)
        """Whether there is an answer, from the first token."""
        self.span = nn.Linear(width, 2)
        """Where it begins and ends; at the first token where there is none. Only training uses it:
        to find the answer is what teaches to tell that there is one."""
        for linear in (self.answers, self.span):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)


def pairs_of(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    passages: Sequence[str],
    *,
    max_tokens: int = MAX_TOKENS,
) -> list[Pair]:
    """Every question with the passage at its place; the longer of the two is cut at its end."""
    if not questions:
        return []
    found: Any = tokenizer(
        list(questions),
        list(passages),
        truncation="longest_first",
        max_length=max_tokens,
        return_attention_mask=False,
        return_offsets_mapping=True,
    )
    kinds = found.get("token_type_ids")
    return [
        Pair(
            ids=found["input_ids"][at],
            kinds=None if kinds is None else kinds[at],
            passage=_second(found.sequence_ids(at)),
            offsets=found["offset_mapping"][at],
        )
        for at in range(len(questions))
    ]


def read(model: PreTrainedModel, heads: Heads, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Log-odds (pairs,) that the passage answers; logits (pairs, tokens, 2) of begin and end."""
    device = next(heads.parameters()).device
    longest = max(len(pair.ids) for pair in pairs)
    padding = model.config.pad_token_id or 0
    ids = torch.tensor([[*p.ids, *[padding] * (longest - len(p.ids))] for p in pairs])
    there = torch.arange(longest) < torch.tensor([len(pair.ids) for pair in pairs])[:, None]
    more: dict[str, Tensor] = {}
    if all(pair.kinds is not None for pair in pairs):
        kinds = [[*(p.kinds or ()), *[0] * (longest - len(p.ids))] for p in pairs]
        more["token_type_ids"] = torch.tensor(kinds, device=device)
    states = model(
        input_ids=ids.to(device), attention_mask=there.long().to(device), **more
    ).last_hidden_state.float()
    place = torch.arange(longest)
    begins, ends = torch.tensor([pair.passage for pair in pairs]).T
    inside = (place >= begins[:, None]) & (place < ends[:, None])
    inside[:, 0] = True  # where the answer "stands" that is not there
    span = heads.span(states).masked_fill(~inside[:, :, None].to(device), _OUTSIDE)
    return heads.answers(states[:, 0])[:, 0], span


def _second(sequences: Sequence[int | None]) -> tuple[int, int]:
    """The stretch of tokens of the second text; empty where nothing of it is left."""
    at = [i for i, which in enumerate(sequences) if which == 1]
    return (at[0], at[-1] + 1) if at else (0, 0)
