from __future__ import annotations

import pytest
import torch

from clara.model.topk import select


def test_the_forward_pass_is_the_exact_top_k_in_descending_order() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.8]])
    weights, chosen = select(scores, 2, temperature=0.02)
    assert chosen.tolist() == [[1, 2], [2, 0]]
    assert weights.tolist() == [[[0, 1, 0], [0, 0, 1]], [[0, 0, 1], [1, 0, 0]]]


def test_gradient_reaches_passages_that_were_not_chosen() -> None:
    scores = torch.tensor([[0.50, 0.52, 0.49]], requires_grad=True)
    weights, _ = select(scores, 1, temperature=0.02)
    (weights * torch.tensor([1.0, 2.0, 5.0])).sum().backward()
    assert scores.grad is not None
    assert (scores.grad != 0).all()


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range_is_an_error_that_names_the_range(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be in 1\.\.3, got {k}"):
        select(torch.zeros(1, 3), k, temperature=1.0)


def test_a_negative_temperature_is_an_error() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        select(torch.zeros(1, 3), 1, temperature=-1.0)
