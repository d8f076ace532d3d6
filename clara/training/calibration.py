"""The cosine under which a passage is not read, measured where the right passages are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from clara.model.models import Models
from clara.training.records import QuestionRecord

LOST = 0.02
"""Share of the right passages that the threshold may cut."""


def least_score(models: Models, records: Sequence[QuestionRecord], *, lost: float = LOST) -> float:
    """Cosine that all but a share of the right passages reach, rounded down to two digits.

    Of published checkpoints 0.55 is known. Others lie elsewhere, the pooled kind far below: a
    question's words make up little of a passage.

    Args:
        models: of a checkpoint after stage 3.
        records: those whose positives are known are used; not the ones that are reported on.
        lost: share of right passages below the threshold.
    Raises:
        ValueError: no record has positives.
    """
    found = [score for record in records for score in _scores(models, record)]
    if not found:
        raise ValueError("no record says which documents hold its answer")
    return math.floor(float(torch.tensor(found).quantile(lost)) * 100) / 100


def _scores(models: Models, record: QuestionRecord) -> list[float]:
    right = [record.documents[at] for at in record.positives]
    if not right:
        return []
    query = models.reasoner.encode([record.question])[0]
    blocks = models.compressor.compress(right, cut=True)
    found: list[float] = models.score(query, blocks).tolist()
    return found
