from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from clara.errors import ModelMissing
from clara.retrieval.encoder import SentenceEncoder, fast_dtype
from tests.tiny import HIDDEN, SENTENCES, tiny_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny-encoder")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SentenceEncoder:
    return SentenceEncoder(folder, dtype=torch.float32)


def test_every_vector_has_length_one(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode([*SENTENCES, "", "🐝", "x" * 5_000])
    assert vectors.shape == (len(SENTENCES) + 3, HIDDEN)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_no_texts_give_no_vectors(encoder: SentenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, HIDDEN)


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
def test_a_batch_gives_what_each_text_gives_alone(
    encoder: SentenceEncoder, batch_tokens: int
) -> None:
    together = encoder.encode(SENTENCES, batch_tokens=batch_tokens)
    alone = np.concatenate([encoder.encode([text]) for text in SENTENCES])
    assert np.allclose(together, alone, atol=1e-5)


def test_the_vector_is_the_mean_of_the_token_states(
    encoder: SentenceEncoder,
) -> None:
    tokens = encoder._tokenizer(SENTENCES[0], return_tensors="pt")
    with torch.inference_mode():
        mean = encoder._model(**tokens).last_hidden_state[0].mean(0)
    expected = (mean / mean.norm()).numpy()
    assert np.allclose(encoder.encode([SENTENCES[0]])[0], expected, atol=1e-5)


def test_tokens_have_states_of_length_one_and_know_where_they_stand(
    encoder: SentenceEncoder,
) -> None:
    found = encoder.token_states([*SENTENCES, "x" * 5_000])
    alone = encoder.token_states([SENTENCES[0]])[0]
    assert np.allclose(found[0].states, alone.states, atol=1e-5)
    for text, one in zip(SENTENCES, found, strict=False):
        assert one.states.shape == (len(one.spans), HIDDEN)
        assert np.linalg.norm(one.states, axis=1) == pytest.approx(1, abs=1e-5)
        said = "".join(text[start:end] for start, end in one.spans)
        assert said.replace(" ", "") == text.replace(" ", "")
    assert len(found[-1].spans) <= encoder.max_tokens


def test_different_texts_have_different_vectors(encoder: SentenceEncoder) -> None:
    cosines = encoder.encode(SENTENCES) @ encoder.encode(SENTENCES).T
    assert (cosines - 2 * np.eye(len(SENTENCES))).max() < 0.999


def test_bfloat16_keeps_the_direction(folder: Path, encoder: SentenceEncoder) -> None:
    half = SentenceEncoder(folder, dtype=torch.bfloat16).encode(SENTENCES)
    assert (half * encoder.encode(SENTENCES)).sum(1).min() > 0.999


def test_the_type_of_the_weights_follows_the_processor(folder: Path) -> None:
    assert SentenceEncoder(folder)._model.dtype is fast_dtype(torch.device("cpu"))
    assert fast_dtype(torch.device("meta")) is torch.float32


def test_a_text_over_the_limit_is_read_up_to_it(folder: Path, tmp_path: Path) -> None:
    short = shutil.copytree(folder, tmp_path / "short")
    (short / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    encoder = SentenceEncoder(short, dtype=torch.float32)
    assert encoder.max_tokens == 12
    vectors = encoder.encode(["bees " * 40, "bees " * 80])
    assert np.allclose(vectors[0], vectors[1])


def test_name_and_limit_have_defaults(encoder: SentenceEncoder, folder: Path) -> None:
    assert encoder.name == "tiny-encoder"
    assert (encoder.dimension, encoder.max_tokens) == (HIDDEN, 256)
    assert SentenceEncoder(folder, name="mine").name == "mine"


def test_an_encoder_that_pools_by_its_first_token_is_read_so(
    folder: Path, tmp_path: Path, encoder: SentenceEncoder
) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "1_Pooling").mkdir()
    settings = other / "1_Pooling" / "config.json"
    settings.write_text(json.dumps({"pooling_mode_cls_token": True}))
    first = SentenceEncoder(other, dtype=torch.float32).encode(SENTENCES)
    tokens = encoder._tokenizer(SENTENCES[0], return_tensors="pt")
    with torch.inference_mode():
        state = encoder._model(**tokens).last_hidden_state[0, 0]
    assert np.allclose(first[0], (state / state.norm()).numpy(), atol=1e-5)
    settings.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ModelMissing, match="pools by pooling_mode_max_tokens"):
        SentenceEncoder(other)


def test_threads_can_encode_at_once(encoder: SentenceEncoder) -> None:
    expected = encoder.encode(SENTENCES)
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(lambda _: encoder.encode(SENTENCES), range(12)):
            assert np.allclose(vectors, expected, atol=1e-5)


def test_a_folder_without_a_model_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="cannot load a sentence encoder") as raised:
        SentenceEncoder(tmp_path)
    assert raised.value.field == "CLARA_SENTENCE_ENCODER"
