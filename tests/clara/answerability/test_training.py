"""A tiny encoder learns to read pairs, goes on after a stop, and is read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clara.answerability.encoder import ReadingEncoder
from clara.answerability.examples import Answered
from clara.answerability.files import Kept, load, save
from clara.answerability.network import pairs_of
from clara.answerability.port import PairEncoder
from clara.answerability.training import LOG, Config, Material, Round, Training
from clara.errors import Cancelled, InvalidCheckpoint, InvalidTraining
from clara.retrieval.encoder import SentenceEncoder
from clara.training.changed import Vocabulary
from clara.training.narrowed import Additions
from tests.tiny import tiny_encoder

TOWNS = ["market", "harbour", "sea", "wall", "ship", "ice"]
THINGS = ["Tea", "Bees", "Salt", "Flowers", "Water"]
MATERIAL = Material(
    [
        Answered(
            f"Where is {thing}?",
            town,
            [f"{thing} is on the {town}. The comb was built."],
            [f"{thing} came. The comb was built."],
        )
        for thing in THINGS
        for town in TOWNS
    ],
    Vocabulary((), torch.empty(0, 1)),
    Additions((), ()),
)
CONFIG = Config(rounds=30, rank=8, learning_rate=5e-3, batch_size=16, questions=15, save_every=5)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Kept]:
    out = tmp_path_factory.mktemp("trained")
    kept = Training(MATERIAL, encoder, out, CONFIG).run()
    save(kept, out / "adapter")
    return out, kept


def test_what_answers_is_told_from_what_does_not(encoder: Path, trained: tuple[Path, Kept]) -> None:
    reader = ReadingEncoder(encoder, trained[0] / "adapter")
    assert isinstance(reader, PairEncoder)
    right, wrong = reader.answerability(
        "Where is Salt?", ["Salt is on the ice. The comb was built.", "Salt came. Ice is built."]
    )
    assert right > 0.5 > wrong
    assert reader.answerability("Where is Salt?", []) == []


def test_its_vectors_are_those_of_the_encoder_alone(
    encoder: Path, trained: tuple[Path, Kept]
) -> None:
    texts = ["Salt is on the ice.", "Bees came."]
    reader = ReadingEncoder(encoder, trained[0] / "adapter")
    plain = SentenceEncoder(encoder)
    assert (reader.encode(texts) == plain.encode(texts)).all()
    assert reader.name == plain.name


def test_the_same_is_told_of_a_passage_alone_and_among_longer_ones(
    encoder: Path, trained: tuple[Path, Kept]
) -> None:
    reader = ReadingEncoder(encoder, trained[0] / "adapter", dtype=torch.float32)
    passages = ["Salt is on the ice.", "Bees came. " * 40, "x"]
    together = reader.answerability("Where is Salt?", passages)
    alone = [reader.answerability("Where is Salt?", [text])[0] for text in passages]
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_training_goes_on_after_a_stop_to_the_same_weights(
    encoder: Path, trained: tuple[Path, Kept], tmp_path: Path
) -> None:
    def killed(done: Round) -> None:
        if done.number == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Training(MATERIAL, encoder, tmp_path, CONFIG).run(tell=killed)
    again = Training(MATERIAL, encoder, tmp_path, CONFIG)
    assert again.progress.step == 10  # what came after the last saved state is done again
    rounds: list[int] = []
    with pytest.raises(Cancelled, match="stopped after round 13"):
        again.run(tell=lambda done: rounds.append(done.number), stopped=lambda: len(rounds) == 3)
    kept = Training(MATERIAL, encoder, tmp_path, CONFIG).run()
    for name, value in trained[1].adapter.items():
        torch.testing.assert_close(kept.adapter[name], value)
    for name, value in trained[1].heads.items():
        torch.testing.assert_close(kept.heads[name], value)


def test_a_training_may_go_on_with_an_adapter(
    encoder: Path, trained: tuple[Path, Kept], tmp_path: Path
) -> None:
    kept = load(trained[0] / "adapter", trained[1].encoder)
    again = Training(MATERIAL, encoder, tmp_path, replace(CONFIG, rounds=1), begin=kept).run()
    first = json.loads((tmp_path / LOG).read_text().splitlines()[0])
    begun = json.loads((trained[0] / LOG).read_text().splitlines()[0])
    assert first["loss"] < begun["loss"]
    assert again.notes[0] == kept.notes[0]
    assert len(again.notes) == 2


def test_the_log_has_a_line_for_each_round_and_its_loss_falls(trained: tuple[Path, Kept]) -> None:
    lines = [json.loads(line) for line in (trained[0] / LOG).read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(30))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["span"] < lines[0]["span"]


def test_a_folder_of_another_rank_is_refused(
    encoder: Path, trained: tuple[Path, Kept], tmp_path: Path
) -> None:
    out, _ = trained
    with pytest.raises(InvalidTraining, match="other parameters"):
        Training(MATERIAL, encoder, out, replace(CONFIG, rank=4))


def test_an_adapter_of_another_encoder_is_refused(
    trained: tuple[Path, Kept], tmp_path: Path
) -> None:
    other = tiny_encoder(tmp_path / "other", seed=1)
    with pytest.raises(InvalidCheckpoint, match="trained over another"):
        ReadingEncoder(other, trained[0] / "adapter")


def test_a_damaged_adapter_is_refused_by_name(
    encoder: Path, trained: tuple[Path, Kept], tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    save(trained[1], folder)
    weights = folder / "answerability.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InvalidCheckpoint, match=r"its hash is not the one in manifest\.json"):
        ReadingEncoder(encoder, folder)
    weights.write_bytes(whole[:-1])
    with pytest.raises(InvalidCheckpoint, match=r"answerability\.safetensors cannot be read"):
        ReadingEncoder(encoder, folder)
    weights.unlink()
    with pytest.raises(InvalidCheckpoint, match=r"has no answerability\.safetensors"):
        ReadingEncoder(encoder, folder)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InvalidCheckpoint, match="has format 2"):
        ReadingEncoder(encoder, folder)


def test_pairs_are_no_longer_than_the_encoder_reads(encoder: Path, tmp_path: Path) -> None:
    long = [replace(one, right=[one.right[0] + " ice" * 600]) for one in MATERIAL.questions[:3]]
    config = replace(CONFIG, rounds=1, max_tokens=4096, questions=3)
    kept = Training(replace(MATERIAL, questions=long), encoder, tmp_path / "out", config).run()
    assert kept.max_tokens == 510
    save(kept, tmp_path / "adapter")
    reader = ReadingEncoder(encoder, tmp_path / "adapter")
    assert len(reader.answerability("Where is Salt?", ["ice " * 900])) == 1


def test_heads_of_another_width_are_refused(encoder: Path, trained: tuple[Path, Kept]) -> None:
    with pytest.raises(InvalidCheckpoint, match="its heads do not"):
        trained[1].heads_over(16)


def test_the_longer_of_question_and_passage_is_cut(encoder: Path) -> None:
    tokenizer = SentenceEncoder(encoder)._tokenizer
    (long,) = pairs_of(tokenizer, ["Salt?"], ["ice " * 100], max_tokens=20)
    assert len(long.ids) == 20
    first, last = long.passage
    assert (last - first) > 10
    (asked,) = pairs_of(tokenizer, ["ice " * 100], ["Salt."], max_tokens=20)
    assert asked.passage[1] - asked.passage[0] >= 2
