"""`clara train answerability`, on tiny models and few records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clara import cli
from clara.answerability.encoder import ReadingEncoder
from clara.answerability.files import encoder_hash, load
from clara.errors import InvalidCheckpoint, ModelMissing
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
    best = max(reader.answerability("who made it", INSTRUCTION["docs"]))  # type: ignore[arg-type]
    assert best - 0.001 <= reader.least_answerability <= best
    options = ("--begin", str(out / "adapter"), "--out", str(tmp_path / "on"), "--minutes", "0.01")
    further = run(*files, *options, "--wrongly", "1", "--seed", "3")
    assert further.exit_code == 0, further.output
    manifest = json.loads((tmp_path / "on" / "adapter" / "manifest.json").read_text())
    assert [json.loads(note.split(": ", 1)[1])["seed"] for note in manifest["notes"]] == [0, 3]


def test_without_minutes_the_bound_is_measured_anew(
    installed: Settings, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.training, "settings", lambda: installed)
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(*files, "--out", str(first), "--minutes", "0.01").exit_code == 0
    begin = ("--begin", str(first / "adapter"), "--minutes", "0")
    done = run(*files, "--out", str(second), *begin)
    assert done.exit_code == 0, done.output
    hashed = encoder_hash(installed.sentence_encoder)
    one, other = (load(path / "adapter", hashed) for path in (first, second))
    assert (other.notes, other.least) == (one.notes, one.least)
    for name, value in one.adapter.items():
        assert (other.adapter[name] == value).all()


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
