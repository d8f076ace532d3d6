from __future__ import annotations

import torch

from clara.model.scoring import cosine, score


def test_a_score_is_the_cosine_of_the_flattened_blocks() -> None:
    query, latents = torch.randn(4, 8), torch.randn(3, 4, 8)
    wanted = [float(query.flatten() @ one.flatten() / query.norm() / one.norm()) for one in latents]
    assert torch.allclose(score(query, latents), torch.tensor(wanted), atol=1e-6)
    assert torch.equal(score(query, list(latents)), score(query, latents))


def test_scores_are_float32_whatever_the_latents_are_stored_in() -> None:
    query, latents = torch.randn(4, 8), torch.randn(3, 4, 8)
    found = score(query, [latent.bfloat16() for latent in latents])
    assert found.dtype == torch.float32
    assert torch.allclose(found, score(query, latents), atol=0.02)


def test_no_passages_give_no_scores() -> None:
    assert score(torch.randn(4, 8), []).shape == (0,)


def test_gradients_reach_the_query() -> None:
    query = torch.randn(2, 1, 4, 8, requires_grad=True)
    scores = cosine(query, torch.randn(2, 5, 4, 8))
    assert scores.shape == (2, 5)
    scores.sum().backward()
    assert query.grad is not None
    assert query.grad.abs().sum() > 0
