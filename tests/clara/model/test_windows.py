from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clara.model.windows import divided, places, pooled, rows_of

NO_ORDER = torch.zeros(2, 5)


def drawn(counts: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """States, weights and lengths of texts of so many tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(counts)
    longest = int(lengths.max())
    states = torch.randn(len(counts), longest, 5, generator=generator)
    there = torch.arange(longest) < lengths.unsqueeze(1)
    weights = torch.randn(len(counts), longest, generator=generator).mul(2).exp() * there
    return states, weights, lengths


TEXTS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(counts=TEXTS, rate=st.integers(1, 17), seed=st.integers(0, 1000))
def test_windows_follow_each_other_and_none_is_empty(
    counts: list[int], rate: int, seed: int
) -> None:
    _, weights, lengths = drawn(counts, seed)
    found = divided(weights, lengths, rate)
    for row, count in zip(found.tolist(), counts, strict=True):
        windows = row[:count]
        assert windows[0] == 0
        assert windows[-1] == -(-count // rate) - 1
        assert all(b - a in (0, 1) for a, b in itertools.pairwise(windows))


@given(counts=TEXTS, rate=st.integers(1, 17), seed=st.integers(0, 1000))
def test_rows_are_weighted_sums_over_the_root_of_the_squared_weights(
    counts: list[int], rate: int, seed: int
) -> None:
    states, weights, lengths = drawn(counts, seed)
    found = pooled(states, weights, lengths, rate, NO_ORDER)
    window = divided(weights, lengths, rate)
    assert found.shape[1] == int(rows_of(lengths, rate).max())
    for text, count in enumerate(counts):
        for row in range(-(-count // rate)):
            inside = [at for at in range(count) if window[text, at] == row]
            s, w = states[text, inside], weights[text, inside]
            wanted = (s * w[:, None]).sum(0) / w.square().sum().sqrt()
            assert torch.allclose(found[text, row], wanted, atol=1e-4)
        assert not found[text, -(-count // rate) :].any()


def test_equal_weights_give_windows_of_equal_length() -> None:
    found = divided(torch.ones(1, 8), torch.tensor([8]), 4)
    assert found.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_a_heavy_token_gets_a_window_of_its_own_and_light_ones_share() -> None:
    weights = torch.tensor([[0.1, 0.1, 0.1, 9.0, 5.0, 0.1, 0.1, 0.1]])
    found = divided(weights, torch.tensor([8]), 2)
    assert found[0, 3] != found[0, 4]
    assert len({int(w) for w in found[0, :3]}) < 3


def test_a_row_of_different_states_is_as_long_as_one_of_them_whatever_the_window() -> None:
    for rate in (1, 2, 4, 8):
        found = pooled(
            torch.eye(8).unsqueeze(0),
            torch.rand(1, 8) + 0.5,
            torch.tensor([8]),
            rate,
            torch.zeros(2, 8),
        )
        assert torch.allclose(found.norm(dim=2), torch.ones(1, 8 // rate))


def test_places_lie_around_the_middle_of_their_window() -> None:
    window = torch.tensor([[0, 0, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0]])
    found = places(window, torch.tensor([6, 1]), 3)
    assert torch.allclose(found[0], torch.tensor([-1 / 2, 1 / 2, 0, -2 / 3, 0, 2 / 3]))
    assert found[1, 0] == 0


def test_gradients_reach_weights_states_and_order() -> None:
    states, weights, lengths = drawn([9, 4], 3)
    order = torch.full((2, 5), 0.2, requires_grad=True)
    states.requires_grad_()
    weights.requires_grad_()
    pooled(states, weights, lengths, 4, order).square().sum().backward()
    for found in (states, weights, order):
        assert found.grad is not None
        assert found.grad.abs().sum() > 0
