from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clara.errors import CheckpointMismatch, InvalidCheckpoint
from clara.model.checkpoint import Checkpoint, CheckpointConfig, load, save
from clara.model.models import Models
from clara.model.pooled import NUMERAL_IDF, PooledKind, initial_pooling
from clara.model.scoring import score
from clara.model.tokens import load_tokens
from tests.clara.model.conftest import RANK, adapter
from tests.tiny import HIDDEN, SENTENCES

Open = Callable[..., Models]


@pytest.fixture(scope="module")
def pooled(base: Path, opened: Open) -> Checkpoint:
    """Pooled latents at rates 4 and 16, without contextual states."""
    config = CheckpointConfig(
        str(base),
        compr_rate=4,
        doc_max_length=32,
        lora_r=RANK,
        training_stage="stage1",
        kind="pooled",
        rates=(4, 16),
        different_mem_tokens=False,
    )
    size = load_tokens(base, n_mem=8, doc_max_length=32, different=False).size
    weights = torch.randn(size, generator=torch.Generator().manual_seed(3))
    order = torch.full((2, HIDDEN), 0.3)
    pooling = {"weights": weights, "gate": torch.zeros(HIDDEN), "order": order}
    made = Checkpoint(config, {"generator": adapter(base, 2)}, trained=True, name="tiny-pooled")
    return replace(made, pooling={"compressor": pooling})


def test_a_short_passage_gets_few_rows(pooled: Checkpoint, opened: Open) -> None:
    models = opened(pooled)
    short, long = models.compressor.compress(["tea", SENTENCES[0][:40]])
    counts = models.tokens.count(["tea", SENTENCES[0][:40]])
    assert [len(short), len(long)] == [-(-count // 4) for count in counts]
    assert len(short) < len(long)


def test_a_closed_gate_gives_what_no_pass_through_the_model_gives(
    pooled: Checkpoint, opened: Open, base: Path
) -> None:
    plain = opened(pooled)
    seeing = opened(replace(pooled, adapters={**pooled.adapters, "compressor": adapter(base, 7)}))
    assert isinstance(seeing.compressor.kind, PooledKind)
    assert seeing.compressor.kind.contextual
    for a, b in zip(
        plain.compressor.compress(SENTENCES[:2]),
        seeing.compressor.compress(SENTENCES[:2]),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-6)


def test_an_open_gate_lets_the_context_in(pooled: Checkpoint, opened: Open, base: Path) -> None:
    gated = {**pooled.pooling["compressor"], "gate": torch.full((HIDDEN,), 0.3)}
    adapters = {**pooled.adapters, "compressor": adapter(base, 7)}
    seeing = opened(replace(pooled, adapters=adapters, pooling={"compressor": gated}))
    before, after = (
        models.compressor.compress(["tea from Canton"])[0] for models in (opened(pooled), seeing)
    )
    assert (before - after).abs().max() > 0.01


def test_blocks_of_different_lengths_and_rates_are_compared_by_their_mean_rows(
    pooled: Checkpoint, opened: Open
) -> None:
    fine, coarse = opened(pooled), opened(pooled, rate=16)
    kind = fine.compressor.kind
    a = fine.compressor.compress([SENTENCES[0][:60]])[0]
    b = coarse.compressor.compress([SENTENCES[0][:60]])[0]
    assert len(a) > len(b)
    found = score(kind, a, [b, a])
    wanted = torch.nn.functional.cosine_similarity(a.mean(0), b.mean(0), dim=0)
    assert torch.allclose(found, torch.stack([wanted, torch.tensor(1.0)]), atol=1e-6)


def late(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, config=replace(checkpoint.config, interaction="late"))


def test_a_late_score_is_the_weighted_mean_of_each_tokens_best_cosine(
    pooled: Checkpoint, opened: Open
) -> None:
    models = opened(late(pooled))
    question = "Who came from Canton?"
    (query,), blocks = models.reasoner.encode([question]), models.compressor.compress(SENTENCES[:3])
    ids = models.tokens.encode([question])[0]
    assert len(query) == len(ids)
    weights = pooled.pooling["compressor"]["weights"][ids].exp()
    assert torch.allclose(query.norm(dim=1), weights, rtol=1e-4)
    found = models.score(query, blocks)
    assert found.dtype == torch.float32
    for block, given in zip(blocks, found, strict=True):
        cosines = [
            max(float(torch.nn.functional.cosine_similarity(row, other, dim=0)) for other in block)
            for row in query
        ]
        wanted = (weights * torch.tensor(cosines)).sum() / weights.sum()
        assert float(given) == pytest.approx(float(wanted), abs=1e-5)


def test_a_late_score_does_not_go_by_length_and_order_of_rows(
    pooled: Checkpoint, opened: Open
) -> None:
    models = opened(late(pooled), rate=16)
    (query,), (block,) = models.reasoner.encode(["tea?"]), models.compressor.compress(SENTENCES[:1])
    other = block.flip(0) * torch.rand(len(block), 1).add(0.1)
    found = models.score(query, [block, other, torch.cat([block, block])])
    assert torch.allclose(found, found[:1], atol=1e-6)
    assert models.score(query, [block.bfloat16()]) == pytest.approx(float(found[0]), abs=0.01)


def test_late_interaction_changes_no_latent_of_a_passage(pooled: Checkpoint, opened: Open) -> None:
    plain, other = opened(pooled), opened(late(pooled))
    assert plain.fingerprint == other.fingerprint
    assert plain.weights_hash != other.weights_hash
    for a, b in zip(*(m.compressor.compress(SENTENCES[:2]) for m in (plain, other)), strict=True):
        assert torch.equal(a, b)


def test_gradients_of_a_late_score_reach_the_question(pooled: Checkpoint, opened: Open) -> None:
    models = opened(late(pooled))
    query = models.reasoner.encode(["Who came?"])[0].requires_grad_()
    models.score(query, models.compressor.compress(SENTENCES[:2])).sum().backward()  # type: ignore[no-untyped-call]
    assert query.grad is not None
    assert query.grad.abs().sum() > 0


def test_rare_tokens_start_with_more_weight_than_frequent_ones() -> None:
    found = initial_pooling([[1, 2], [1, 3], [1, 4]], vocabulary=6, width=3)
    weights = found.weights
    assert weights[1] < weights[2] == weights[3] < weights[5]
    assert not found.gate.any()


def test_numbers_weigh_as_a_rare_word_does_however_frequent_their_digits_are(
    pooled: Checkpoint, opened: Open
) -> None:
    tokens = opened(pooled).tokens
    digits = tokens.encode(["1", "874"])
    numerals = tokens.numerals()
    assert {i for row in digits for i in row} <= set(numerals)
    assert not set(tokens.encode(["tea came"])[0]) & set(numerals)
    texts = [[*digits[0], 5], [*digits[0], 6]]
    plain, found = (
        initial_pooling(texts, vocabulary=tokens.size, width=3, numerals=ids).weights.exp()
        for ids in ([], numerals)
    )
    assert plain[digits[0][0]] < plain[5]
    assert found[digits[0][0]] == NUMERAL_IDF > plain[5]
    rest = [i for i in range(tokens.size) if i not in numerals]
    assert torch.equal(found[rest], plain[rest])


def test_the_order_of_tokens_within_a_window_counts_unless_order_is_off(
    pooled: Checkpoint, opened: Open
) -> None:
    kind = opened(pooled, rate=16).compressor.kind
    assert isinstance(kind, PooledKind)
    digits = kind.ids(["149"])[0]
    other = [*digits[:2], *reversed(digits[2:-1]), digits[-1]]
    assert other != digits
    plain = replace(kind, pooling=replace(kind.pooling, order=torch.zeros(2, HIDDEN)))
    for found, alike in ((kind, False), (plain, True)):
        (a, b) = found.blocks(lambda _: [], [digits, other])
        assert torch.allclose(a, b, atol=1e-6) is alike


def test_at_rate_one_a_latent_is_the_tokens_themselves(pooled: Checkpoint, opened: Open) -> None:
    kind = opened(pooled).compressor.kind
    assert isinstance(kind, PooledKind)
    ids = kind.ids(["tea from Canton"])
    (block,) = replace(kind, rate=1).blocks(lambda _: [], ids)
    wanted = kind.embedding[ids[0][2:-1]] - kind.middle.mean
    assert torch.allclose(block, wanted, atol=1e-5)


def test_a_pooled_checkpoint_is_saved_and_read_again(
    pooled: Checkpoint, opened: Open, tmp_path: Path
) -> None:
    found = load(save(pooled, tmp_path / "pooled"))
    assert found.config == pooled.config
    first, again = opened(pooled), opened(found)
    assert first.fingerprint == again.fingerprint
    assert first.weights_hash == again.weights_hash
    assert torch.equal(first.compressor.compress(["tea"])[0], again.compressor.compress(["tea"])[0])


def test_one_checkpoint_answers_at_each_of_its_rates_and_no_other(
    pooled: Checkpoint, opened: Open
) -> None:
    for rate in (4, 16):
        models = opened(pooled, rate=rate)
        latents = models.compressor.compress(SENTENCES[:2])
        assert models.generator.answer_from_latents("Who?", latents, max_new_tokens=4).token_ids
    with pytest.raises(InvalidCheckpoint, match=r"rate 8 is none of .* trained for: 4, 16"):
        opened(pooled, rate=8)


def test_fingerprints_tell_rates_and_weights_apart(pooled: Checkpoint, opened: Open) -> None:
    other = {k: v.clone() for k, v in pooled.pooling["compressor"].items()}
    other["weights"][0] += 1
    marks = {
        opened(pooled).fingerprint,
        opened(pooled, rate=16).fingerprint,
        opened(replace(pooled, pooling={"compressor": other})).fingerprint,
    }
    assert len(marks) == 3


def test_the_generator_reads_latents_around_the_mean_embedding(
    pooled: Checkpoint, opened: Open
) -> None:
    models = opened(pooled)
    block = models.compressor.compress(["tea from Canton"])[0]
    prompt = models.generator.prompt_from_latents("Who?", [block, block[:1]])
    assert models.generator.center is not None
    rows = block + models.generator.center
    assert _holds(prompt, rows)
    assert _holds(prompt, rows[:1])


def test_a_block_wider_than_the_base_is_refused(pooled: Checkpoint, opened: Open) -> None:
    generator = opened(pooled).generator
    with pytest.raises(
        CheckpointMismatch, match=r"\(2, 33\); this checkpoint makes \(1 to 8, 32\)"
    ):
        generator.answer_from_latents("Who?", [torch.zeros(2, 33)], max_new_tokens=2)


def _holds(prompt: Tensor, rows: Tensor) -> bool:
    places = range(len(prompt) - len(rows) + 1)
    return any(torch.allclose(prompt[at : at + len(rows)], rows, atol=1e-6) for at in places)
