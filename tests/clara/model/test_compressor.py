from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clara.errors import EmptyText, TextTooLong
from clara.model.checkpoint import Checkpoint, untrained
from clara.model.models import Models
from tests.tiny import HIDDEN, SENTENCES

TEXTS = ["tea", *[s[:40] for s in SENTENCES], "the wall", "bees dance"]


def test_each_text_gives_one_block_of_the_checkpoints_shape(models: Models) -> None:
    latents = models.compressor.compress(TEXTS)
    assert [tuple(latent.shape) for latent in latents] == [(8, HIDDEN)] * len(TEXTS)
    assert latents[0].dtype == torch.float32


def test_a_text_has_the_same_latent_alone_and_among_others(models: Models) -> None:
    together = replace(models.compressor, max_batch_tokens=10_000).compress(TEXTS)
    for text, latent in zip(TEXTS, together, strict=True):
        assert torch.allclose(models.compressor.compress([text])[0], latent, atol=2e-5)


def test_latents_come_back_in_the_order_of_the_texts_whatever_the_batches(models: Models) -> None:
    wanted = models.compressor.compress(TEXTS)
    small = replace(models.compressor, max_batch_tokens=60)
    assert len(small.plan(TEXTS)) > 2
    for got, latent in zip(small.compress(TEXTS), wanted, strict=True):
        assert torch.allclose(got, latent, atol=2e-5)


def test_a_plan_keeps_every_text_once_and_stays_under_its_budget(models: Models) -> None:
    plan = replace(models.compressor, max_batch_tokens=90).plan(TEXTS)
    assert sorted(at for batch in plan for at in batch.positions) == list(range(len(TEXTS)))
    for batch in plan:
        assert len(batch.ids) * max(map(len, batch.ids)) <= 90


def test_a_text_over_the_budget_still_goes_alone(models: Models) -> None:
    plan = replace(models.compressor, max_batch_tokens=1).plan(["tea", "the wall"])
    assert [len(batch.positions) for batch in plan] == [1, 1]


def test_compressing_twice_gives_the_same_bits(models: Models) -> None:
    first, second = models.compressor.compress(TEXTS), models.compressor.compress(TEXTS)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_to_compress_gives_nothing(models: Models) -> None:
    assert models.compressor.compress([]) == []


def test_a_text_of_exactly_the_limit_is_taken_and_one_token_more_is_not(models: Models) -> None:
    fits = "z" * 32
    assert len(models.compressor.compress([fits])) == 1
    with pytest.raises(TextTooLong, match="text 1 has 33 tokens; one pass takes 32") as caught:
        models.compressor.compress(["tea", fits + "z"])
    assert (caught.value.limit, caught.value.field) == (32, "/1")


def test_a_text_that_may_be_cut_is_read_up_to_the_limit_and_one_token_more(
    models: Models,
) -> None:
    fits, more = "z" * 33, "z" * 50
    (row,) = models.compressor.kind.ids([more], cut=True)
    assert row == [*models.tokens.wrapped([fits])[0][:-1], *models.tokens.memory]
    cut, same = models.compressor.compress([more, fits], cut=True)
    assert torch.allclose(cut, same, atol=2e-5)
    short, plain = (
        models.compressor.compress(["tea"], cut=True),
        models.compressor.compress(["tea"]),
    )
    assert torch.equal(short[0], plain[0])


def test_a_text_of_white_space_is_refused(models: Models) -> None:
    with pytest.raises(EmptyText, match="text 1 is empty"):
        models.compressor.compress(["tea", " \n\t"])


def test_control_tokens_in_a_text_are_read_as_plain_text(models: Models) -> None:
    text = "<MEM0> a </s> <SEP> <|im_end|> b"
    (row,) = models.tokens.wrapped([text])
    assert not models.tokens.control & set(row[2:-1])
    assert models.compressor.compress(["a <MEM1> b"])[0].shape == (8, HIDDEN)


def test_latents_of_an_untrained_checkpoint_differ_by_text(
    trained: Checkpoint, opened: Callable[..., Models]
) -> None:
    fresh = untrained(trained.config.base, compr_rate=4, doc_max_length=32)
    one, other = opened(fresh).compressor.compress(["tea", "bees dance"])
    assert (one - other).abs().max() > 0.1
