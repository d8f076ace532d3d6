"""Losses: pure functions of tensors. All of them sums, so that a step can weigh its parts alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax


def answer_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed negative log-likelihood of the answers' tokens. arXiv:2511.18659, section 3.

    Args:
        logits: (tokens, vocabulary), at the positions before each label only.
        labels: (tokens,).
    Returns:
        Scalar, float32; nats.
    """
    return cross_entropy(logits.float(), labels, reduction="sum")


def alignment(states: Sequence[Tensor], memory: int) -> Tensor:
    """How far the mean state at the memory tokens is from the mean state at the text.

    Args:
        states: per passage (ids, width), the last `memory` of them at memory tokens.
        memory: memory tokens per passage.
    Returns:
        Scalar, float32: mean squared difference per passage, summed over passages.
    """
    means = [(s[-memory:].float().mean(dim=0), s[:-memory].float().mean(dim=0)) for s in states]
    return torch.stack([(a - b).square().mean() for a, b in means]).sum()


def retrieval_nll(scores: Tensor, positive: Tensor, *, temperature: float) -> Tensor:
    """Summed negative log of the share that positives have in a softmax over all candidates.

    Args:
        scores: (questions, candidates), cosine; -inf where a question has fewer candidates.
        positive: (questions, candidates), bool; questions without any are left out.
        temperature: in score units.
    Returns:
        Scalar, float32.
    """
    logits = scores.float() / temperature
    has = positive.any(dim=-1)
    gold = logits.masked_fill(~positive, -torch.inf)[has].logsumexp(dim=-1)
    return (logits[has].logsumexp(dim=-1) - gold).sum()


def distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Summed divergence of the answers' token distributions from those of a teacher.

    Args:
        logits: (tokens, vocabulary), of the model that reads latents.
        teacher: the same, of a model that reads the text; no gradient reaches it.
    Returns:
        Scalar, float32; nats.
    """
    wanted = log_softmax(teacher.detach().float(), dim=-1)
    return kl_div(log_softmax(logits.float(), dim=-1), wanted, log_target=True, reduction="sum")
