"""`clara train answerability`, on tiny models and few records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from clara import cli
from clara.answerability.encoder import ReadingEncoder
from clara.answerability.files import encoder_hash, load
from clara.answerability.port import best_answerability
from clara.errors import InvalidCheckpoint, InvalidInput, ModelMissing
from clara.settings import Settings
from tests.clara.training.files import INSTRUCTION, PARAPHRASE, QA, write
from tests.tiny import tiny_base, tiny_encoder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    base, encoder = tiny_base(home / "base"), tiny_encoder(home / "encoder")
    return Settings(home=home, base_model=str(base), sentence_encoder=str(encoder), device="cpu")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    data = write(tmp_path / "data.jsonl", [INSTRUCTION, INSTRUCTION | {"question": "who built"}])
    told = write(tmp_path / "told.jsonl", [QA, PARAPHRASE])
    dev = write(tmp_path / "dev.jsonl", [INSTRUCTION | {"question": "who made it"}])
    return ["--data", str(data), "--told", str(told), "--dev", str(dev), "--device", "cpu"]


@pytest.fixture
def first(
    installed: Settings, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A training that others go on from."""
    monkeypatch.setattr(cli.training, "settings", lambda: installed)
    out = tmp_path / "first"
    assert run(*files, "--out", str(out), "--minutes", "0.01").exit_code == 0
    return out


def run(*options: str) -> Result:
    return CliRunner().invoke(cli.app, ["train", "answerability", *options])


def test_it_ends_in_an_adapter_with_the_bound_that_was_measured(
    installed: Settings, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.training, "settings", lambda: installed)
    out = tmp_path / "out"
    done = run(*files, "--out", str(out), "--minutes", "0.01")
    assert done.exit_code == 0, done.output
    assert "4 questions, 1 held out" in done.output
    assert {path.name for path in out.iterdir()} == {"adapter", "state", "log.jsonl"}
    reader = ReadingEncoder(installed.sentence_encoder, out / "adapter")
    best = best_answerability("who made it", INSTRUCTION["docs"], reader)  # type: ignore[arg-type]
    assert best - 0.001 <= reader.least_answerability <= best
    options = ("--begin", str(out / "adapter"), "--out", str(tmp_path / "on"), "--minutes", "0.01")
    further = run(*files, *options, "--wrongly", "1", "--seed", "3")
    assert further.exit_code == 0, further.output
    manifest = json.loads((tmp_path / "on" / "adapter" / "manifest.json").read_text())
    assert [json.loads(note.split(": ", 1)[1])["seed"] for note in manifest["notes"]] == [0, 3]


def test_without_minutes_the_bound_is_measured_anew(
    installed: Settings, files: list[str], first: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    begin = ("--begin", str(first / "adapter"), "--minutes", "0")
    done = run(*files, "--out", str(second), *begin)
    assert done.exit_code == 0, done.output
    hashed = encoder_hash(installed.sentence_encoder)
    one, other = (load(path / "adapter", hashed) for path in (first, second))
    assert (other.notes, other.least) == (one.notes, one.least)
    for name, value in one.adapter.items():
        assert (other.adapter[name] == value).all()


def test_a_training_that_is_done_gives_any_part_of_its_way(
    installed: Settings, files: list[str], first: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    options = (*files, "--out", str(second), "--begin", str(first / "adapter"), "--seed", "3")
    hashed, found = encoder_hash(installed.sentence_encoder), {}
    for share in ("1", "0", "0.25"):
        done = run(*options, "--minutes", "0.01", "--share", share)
        assert done.exit_code == 0, done.output
        found[share] = load(second / "adapter", hashed)
    begun = load(first / "adapter", hashed)
    assert "0.25 of the way" in found["0.25"].notes[-1]
    for part in ("adapter", "heads"):
        whole, none, some = (getattr(found[share], part) for share in ("1", "0", "0.25"))
        assert any(not torch.equal(whole[name], none[name]) for name in whole)
        for name, value in getattr(begun, part).items():
            assert torch.equal(none[name].float(), value.float())
            mean = 0.25 * whole[name].float() + 0.75 * value.float()
            torch.testing.assert_close(some[name].float(), mean, rtol=0.02, atol=1e-3)


def test_a_part_of_a_way_that_begins_with_nothing_is_refused(
    installed: Settings, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.training, "settings", lambda: installed)
    done = run(*files, "--out", str(tmp_path / "out"), "--share", "0.5")
    assert isinstance(done.exception, InvalidInput)
    assert done.exception.field == "share"
    assert "--begin" in (done.exception.remedy or "")


def test_a_question_held_out_is_not_learned_from(
    installed: Settings, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.training, "settings", lambda: installed)
    dev = write(
        tmp_path / "same.jsonl", [INSTRUCTION, INSTRUCTION | {"question": QA["question"][0]}]
    )  # type: ignore[index]
    done = run(*files, "--dev", str(dev), "--out", str(tmp_path / "out"), "--minutes", "0.01")
    assert "2 questions, 2 held out" in done.output


def test_what_is_missing_is_named(
    installed: Settings, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = installed.model_copy(update={"sentence_encoder": ""})
    monkeypatch.setattr(cli.training, "settings", lambda: bare)
    done = run(*files, "--out", str(tmp_path / "out"))
    assert isinstance(done.exception, ModelMissing)
    assert "clara models fetch" in (done.exception.remedy or "")
    monkeypatch.setattr(cli.training, "settings", lambda: installed)
    done = run(*files, "--out", str(tmp_path / "out"), "--begin", str(tmp_path))
    assert isinstance(done.exception, InvalidCheckpoint)
    assert not (tmp_path / "out").exists()
