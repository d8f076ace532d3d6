from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clara.errors import EmptyText, QuestionTooLong
from clara.model.models import Models
from tests.tiny import HIDDEN


def test_questions_become_float32_blocks_of_the_shape_of_a_latent(models: Models) -> None:
    found = models.reasoner.encode(["Who built the wall?", "When?"])
    assert [tuple(query.shape) for query in found] == [(8, HIDDEN)] * 2
    assert {query.dtype for query in found} == {torch.float32}


def test_a_question_has_the_same_latent_alone_and_beside_a_longer_one(models: Models) -> None:
    together = models.reasoner.encode(["When?", "Who built the harbour wall in 1874?"])
    assert torch.allclose(models.reasoner.encode(["When?"])[0], together[0], atol=2e-5)


def test_the_reasoner_reads_a_text_otherwise_than_the_compressor(models: Models) -> None:
    question = models.reasoner.encode(["tea"])[0]
    assert (question - models.compressor.compress(["tea"])[0]).abs().max() > 0.1


def test_questions_come_back_in_their_order_whatever_the_batches(models: Models) -> None:
    asked = ["Who built the harbour wall in 1874?", "When?", "What do bees do?", "Why?"]
    small = replace(models.reasoner, max_batch_tokens=1)
    for got, wanted in zip(small.encode(asked), models.reasoner.encode(asked), strict=True):
        assert torch.allclose(got, wanted, atol=2e-5)
    assert models.reasoner.encode([]) == []


def test_a_question_over_the_limit_is_refused_and_names_it(models: Models) -> None:
    with pytest.raises(QuestionTooLong, match=r"question 0 has .* one pass takes 32") as caught:
        models.reasoner.encode(["why " * 50])
    assert caught.value.limit == 32


def test_an_empty_question_is_refused(models: Models) -> None:
    with pytest.raises(EmptyText):
        models.reasoner.encode([" "])
