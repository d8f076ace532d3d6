"""What is measured of a checkpoint where the right passages are known.

The cosine under which a passage is not read, by how much a refusal must lead, and how far a
passage must look like an answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clara.answerability.port import PairEncoder, best_answerability
from clara.model.backbone import head_of
from clara.model.models import Models
from clara.training.records import QuestionRecord
from clara.wording import NOT_IN_DOCUMENTS

LOST = 0.02
"""Share of the right passages that the threshold may cut."""

WRONGLY = 0.05
"""Share of answerable questions that a generator may refuse."""


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


def refusal_margin(
    models: Models, records: Sequence[QuestionRecord], *, text: bool, most: float = WRONGLY
) -> float:
    """Nats by which a refusal must lead for few answerable questions to be refused; 0 or more.

    A generator that reads badly has learned to refuse what it cannot read, and what it would say
    otherwise is right now and then. Rounded up to a digit.

    Args:
        models: of a checkpoint whose generator refuses, at the rate that is asked about.
        records: those whose positives are known are used; not the ones that are reported on.
        text: read the documents' text, and not their latents.
        most: share of them that may be refused.
    Raises:
        ValueError: no record has positives.
    """
    prompts = [_prompt(models, record, text) for record in records if record.positives]
    if not prompts:
        raise ValueError("no record says which documents hold its answer")
    leads = torch.tensor(refusal_leads(models, prompts))
    return max(math.ceil(float(leads.quantile(1 - most)) * 10) / 10, 0.0)


def least_answerability(
    encoder: PairEncoder, records: Sequence[QuestionRecord], *, most: float = WRONGLY
) -> float:
    """What the documents of nearly every answerable question reach, rounded down.

    Args:
        encoder: reads pairs.
        records: those whose positives are known are used; not the ones that are reported on.
        most: share of them whose documents reach less.
    Raises:
        ValueError: no record has positives.
    """
    best = [
        best_answerability(one.question, one.documents, encoder) for one in records if one.positives
    ]
    if not best:
        raise ValueError("no record says which documents hold its answer")
    return math.floor(float(torch.tensor(best).quantile(most)) * 1000) / 1000


def refusal_leads(models: Models, prompts: Sequence[Tensor]) -> list[float]:
    """How far a refusal's first token leads every other one, in nats.

    Args:
        models: of one checkpoint.
        prompts: input embeddings (tokens, width), of questions.
    """
    generator = models.generator
    (first, *_), *_ = models.tokens.encode([NOT_IN_DOCUMENTS])
    found = []
    for prompt in prompts:
        with torch.inference_mode():
            states = generator.model.base_model(inputs_embeds=prompt[None]).last_hidden_state
            logits = head_of(generator.model)(states[:, -1]).float()[0]
            refusal = float(logits[first])
            logits[first] = -torch.inf
            found.append(refusal - float(logits.max()))
    return found


def _prompt(models: Models, record: QuestionRecord, text: bool) -> Tensor:
    """The documents that answer, before as many others as are read in training."""
    others = [at for at in range(len(record.documents)) if at not in record.positives]
    chosen = sorted([*record.positives, *others][: models.checkpoint.config.generation_top_k])
    documents = [record.documents[at] for at in chosen]
    if text:
        return models.generator.prompt_from_text(record.question, documents)
    blocks = models.compressor.compress(documents, cut=True)
    return models.generator.prompt_from_latents(record.question, blocks)


def _scores(models: Models, record: QuestionRecord) -> list[float]:
    right = [record.documents[at] for at in record.positives]
    if not right:
        return []
    query = models.reasoner.encode([record.question])[0]
    blocks = models.compressor.compress(right, cut=True)
    found: list[float] = models.score(query, blocks).tolist()
    return found
