"""Windows of tokens for pooled latents: where each begins, and how its tokens are told apart.

A window holds its share of the passage's weight, not a number of tokens. With equal numbers some
windows hold four names and others four articles, and what is lost is what the names said.

In a plain sum "149" and "419" are one and the same. So every token is multiplied by factors that
depend on its place within the window; the first and the last differ most. The factors lie around
1, so a base that never saw a sum still recognises the tokens in it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WAVES = (0.5, 1.0)
"""Half and whole waves over a window: the two ways in which factors follow a token's place."""

_NOTHING = 1e-24


def divided(weights: Tensor, lengths: Tensor, rate: int) -> Tensor:
    """The window of every token, by weight; none stays empty, and at rate 1 each has its own.

    Args:
        weights: (texts, tokens), positive; 0 where there is no token.
        lengths: (texts,) tokens of each text, which stand first.
        rate: tokens per window, on average.
    Returns:
        (texts, tokens) int64, rising from 0 to tokens / rate, rounded up, - 1; where there is no
        token, any of these.
    """
    with torch.no_grad():
        place = torch.arange(weights.shape[1], device=weights.device)
        rows = rows_of(lengths, rate).unsqueeze(1)
        mass = weights.cumsum(1) - weights / 2
        share = mass / weights.sum(1, keepdim=True).clamp(min=_NOTHING)
        wanted = (share * rows).long()
        # at most one window further per token, and as many tokens left as there are windows
        most = (wanted - place).cummin(1).values.clamp(max=0) + place
        least = rows - lengths.unsqueeze(1) + place
        return torch.minimum(torch.maximum(most, least), rows - 1)


def rows_of(lengths: Tensor, rate: int) -> Tensor:
    """Windows of texts of so many tokens."""
    return -(-lengths // rate)


def pooled(states: Tensor, weights: Tensor, lengths: Tensor, rate: int, order: Tensor) -> Tensor:
    """Weighted sums over windows, divided by the root of the squared weights.

    So a row keeps the length of one token's state while the states differ, whatever the window.

    Args:
        states: (texts, tokens, width).
        weights: (texts, tokens), positive; 0 where there is no token.
        lengths: (texts,) tokens of each text.
        rate: tokens per window, on average.
        order: (waves, width): how much a token's factors follow its place; zeros for a plain sum.
    Returns:
        (texts, windows of the longest, width); zeros behind the windows of a shorter text.
    """
    texts, _, width = states.shape
    window = divided(weights, lengths, rate)
    most = int(rows_of(lengths, rate).max())
    flat = (window + torch.arange(texts, device=window.device).unsqueeze(1) * most).flatten()
    placed = places(window, lengths, most)
    waves = torch.stack([torch.sin(math.pi * wave * placed) for wave in WAVES], dim=-1)
    told = states * (1 + waves @ order) * weights.unsqueeze(-1)
    sums = states.new_zeros(texts * most, width).index_add(0, flat, told.flatten(0, 1))
    squares = weights.new_zeros(texts * most).index_add(0, flat, weights.square().flatten())
    found: Tensor = sums / squares.clamp(min=_NOTHING).sqrt().unsqueeze(1)
    return found.view(texts, most, width)


def places(window: Tensor, lengths: Tensor, most: int) -> Tensor:
    """Where in its window every token stands: (texts, tokens) between -1 and 1, 0 if alone.

    Args:
        window: of every token, as `divided` gives it.
        lengths: (texts,) tokens of each text.
        most: windows of the longest text.
    """
    at = torch.arange(window.shape[1], device=window.device).expand_as(window)
    there = (at < lengths.unsqueeze(1)).long()
    size = window.new_zeros(len(window), most).scatter_add(1, window, there)
    first = size.cumsum(1) - size
    offset = at - first.gather(1, window)
    # float32 whatever torch's default is at this moment (clara/serving: a model may be loading)
    return (2 * offset + 1).float() / size.gather(1, window).clamp(min=1).float() - 1
