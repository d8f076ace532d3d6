"""The best passages of each question, by cosine of latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clara.library import checks
from clara.library.compressing import Block
from clara.model.models import Models


def best(
    models: Models,
    questions: Sequence[str],
    candidates: Sequence[Sequence[Block]],
    top_k: int | None,
) -> list[list[Block]]:
    """The `top_k` best of each question's candidates, best first.

    Equal scores keep the order of the candidates.

    Args:
        models: one checkpoint; its query reasoner judges.
        questions: of at most `doc_max_length` tokens.
        candidates: per question, any number.
        top_k: the checkpoint's own number where None; all candidates where there are fewer.
    Raises:
        QuestionTooLong: a question over the limit.
        InvalidInput: `top_k` is below 1.
    """
    wanted = models.checkpoint.config.generation_top_k if top_k is None else top_k
    kept = checks.count(wanted, "generation_top_k")
    queries = models.reasoner.encode(questions)
    chosen = []
    for query, blocks in zip(queries, candidates, strict=True):
        scores = models.score(query, [block.latent for block in blocks])
        order = torch.sort(scores, descending=True, stable=True).indices[:kept]
        chosen.append([blocks[position] for position in order.tolist()])
    return chosen
