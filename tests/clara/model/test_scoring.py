from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clara.model.kinds import LatentKind, MemoryKind, cosine
from clara.model.models import Models
from clara.model.scoring import score


@pytest.fixture
def kind(models: Models) -> LatentKind:
    assert isinstance(models.compressor.kind, MemoryKind)
    return models.compressor.kind


def test_a_score_is_the_cosine_of_the_flattened_blocks(kind: LatentKind) -> None:
    query, latents = torch.randn(4, 8), torch.randn(3, 4, 8)
    wanted = [float(query.flatten() @ one.flatten() / query.norm() / one.norm()) for one in latents]
    assert torch.allclose(score(kind, query, list(latents)), torch.tensor(wanted), atol=1e-6)


def test_scores_are_float32_whatever_the_latents_are_stored_in(kind: LatentKind) -> None:
    query, latents = torch.randn(4, 8), list(torch.randn(3, 4, 8))
    found = score(kind, query, [latent.bfloat16() for latent in latents])
    assert found.dtype == torch.float32
    assert torch.allclose(found, score(kind, query, latents), atol=0.02)


def test_no_passages_give_no_scores(kind: LatentKind) -> None:
    assert score(kind, torch.randn(4, 8), []).shape == (0,)


def test_gradients_reach_the_query(kind: LatentKind) -> None:
    query = torch.randn(2, 4, 8, requires_grad=True)

    def vectors(blocks: Tensor) -> Tensor:
        return torch.stack([kind.vector(block) for block in blocks])

    scores = cosine(vectors(query).unsqueeze(1), torch.randn(2, 5, 32))
    assert scores.shape == (2, 5)
    scores.sum().backward()
    assert query.grad is not None
    assert query.grad.abs().sum() > 0
