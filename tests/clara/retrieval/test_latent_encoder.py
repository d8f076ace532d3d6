from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from clara.errors import EmptyText, QuestionTooLong, TextTooLong
from clara.model.checkpoint import load
from clara.model.models import Models, load_models
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.latent_encoder import LatentEncoder, mean_rows
from clara.retrieval.ports import VectorEncoder
from clara.serving.encoding import EncoderOnEngine
from clara.serving.engine import Engine
from tests.tiny import HIDDEN, SENTENCES, tiny_base, tiny_checkpoint, tiny_encoder

SHORT = [sentence[:24] for sentence in SENTENCES]


@pytest.fixture(scope="module", params=["memory", "pooled"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    base = tiny_base(folder / "base")
    rates = (4,) if request.param == "pooled" else ()
    made = tiny_checkpoint(folder / "made", base, pooled_rates=rates)
    return load_models(load(made), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def encoder(models: Models) -> LatentEncoder:
    return LatentEncoder(
        models.compressor, models.reasoner, fingerprint=models.fingerprint, width=models.width
    )


@pytest.fixture(params=["sentences", "latents"])
def either(request: pytest.FixtureRequest, encoder: LatentEncoder, tmp_path: Path) -> VectorEncoder:
    """Each implementation of the port."""
    if request.param == "sentences":
        return SentenceEncoder(tiny_encoder(tmp_path / "encoder"), dtype=torch.float32)
    return encoder


@pytest.mark.parametrize("side", ["encode", "encode_questions"])
def test_every_vector_has_length_one_and_stands_in_its_text_s_place(
    either: VectorEncoder, side: str
) -> None:
    encode = getattr(either, side)
    together = encode(SHORT)
    assert together.shape == (len(SHORT), either.dimension) == (len(SHORT), HIDDEN)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    alone = np.concatenate([encode([text]) for text in SHORT])
    assert np.allclose(together, alone, atol=1e-4)
    assert encode([]).shape == (0, HIDDEN)


def test_vectors_are_the_mean_rows_of_what_re_ranks(encoder: LatentEncoder, models: Models) -> None:
    blocks = models.compressor.compress(SHORT)
    query = models.reasoner.encode([SHORT[0]])[0]
    means = torch.stack([block.float().mean(0) for block in blocks])
    assert np.allclose(encoder.encode(SHORT), normalize(means).numpy(), atol=1e-6)
    cosines = encoder.encode(SHORT) @ encoder.encode_questions([SHORT[0]])[0]
    expected = cosine_similarity(means, query.float().mean(0)[None])
    assert np.allclose(cosines, expected.numpy(), atol=1e-5)


def test_of_pooled_latents_alone_the_cosine_is_the_score_itself(
    encoder: LatentEncoder, models: Models
) -> None:
    scores = models.score(models.reasoner.encode(SHORT[:1])[0], models.compressor.compress(SHORT))
    cosines = encoder.encode(SHORT) @ encoder.encode_questions(SHORT[:1])[0]
    pooled = models.checkpoint.config.kind == "pooled"
    assert np.allclose(cosines, scores.numpy(), atol=1e-5) is pooled


def test_a_question_is_read_by_the_reasoner_and_not_as_a_passage(encoder: LatentEncoder) -> None:
    as_passage, as_question = encoder.encode(SHORT[:1]), encoder.encode_questions(SHORT[:1])
    assert not np.allclose(as_passage, as_question, atol=1e-3)


def test_the_name_tells_the_vectors_of_two_compressors_apart(models: Models) -> None:
    names = [
        LatentEncoder(models.compressor, models.reasoner, fingerprint=each, width=4).name
        for each in ("a", "b")
    ]
    assert len(set(names)) == 2


def test_texts_that_cannot_be_read_are_refused(encoder: LatentEncoder) -> None:
    with pytest.raises(EmptyText):
        encoder.encode(["  "])
    with pytest.raises(TextTooLong):
        encoder.encode(["bees " * 100])
    with pytest.raises(QuestionTooLong):
        encoder.encode_questions(["bees " * 100])


def test_a_block_of_zeros_has_no_direction_and_no_nan() -> None:
    assert mean_rows([torch.zeros(2, 3)], 3).tolist() == [[0, 0, 0]]


def test_both_sides_are_computed_on_the_engine(either: VectorEncoder) -> None:
    engine = Engine()
    on_engine = EncoderOnEngine(either, engine)
    assert np.allclose(on_engine.encode(SHORT), either.encode(SHORT), atol=1e-5)
    questions = on_engine.encode_questions(SHORT)
    assert np.allclose(questions, either.encode_questions(SHORT), atol=1e-5)
    engine.close()
