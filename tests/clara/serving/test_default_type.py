"""What is computed does not depend on torch's default type: loading changes it for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clara.model.checkpoint import load
from clara.model.models import Models, load_models
from clara.retrieval.encoder import SentenceEncoder
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder

TEXTS = ["Tea came from Canton.", "Bees dance on the comb, and tell each other of flowers."]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=[(), (4, 8)], ids=["memory", "pooled"])
def models(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Models:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    tiny_checkpoint(folder, base, pooled_rates=request.param)
    return load_models(load(folder), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny"))


@pytest.fixture
def _restored() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_restored")
def test_latents_scores_answers_and_vectors_are_the_same_under_any_default(
    models: Models, encoder: SentenceEncoder
) -> None:
    def everything() -> list[object]:
        blocks = models.compressor.compress(TEXTS)
        query = models.reasoner.encode(["Who dances?"])[0]
        latent = models.generator.answer_from_latents("Who?", blocks, max_new_tokens=6)
        text = models.generator.answer_from_text("Who?", TEXTS, max_new_tokens=6)
        return [
            *[block.tolist() for block in [*blocks, query]],
            models.score(query, blocks).tolist(),
            latent.token_ids,
            text.token_ids,
            encoder.encode(TEXTS).tolist(),
        ]

    before = everything()
    torch.set_default_dtype(torch.bfloat16)
    assert everything() == before
