"""From a row to its models: what was registered is what is loaded, or nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clara.db.tables import Checkpoint
from clara.errors import CheckpointMismatch, InvalidCheckpoint, ModelMissing
from clara.registry import Inspected
from clara.settings import Settings
from tests.tiny import tiny_base, tiny_checkpoint
from workers import weights


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def config(tmp_path: Path, base: Path) -> Settings:
    return Settings(
        _env_file=None, home=tmp_path, base_model=str(base), device="cpu", doc_max_length=32
    )


def row_of(found: Inspected, **values: Any) -> Checkpoint:
    """As the record gives it back: numbers went through JSON."""
    numbers = json.loads(json.dumps(dict(found.config)))
    given = vars(found) | {"config": numbers} | values
    return Checkpoint(**given)


@pytest.fixture
def trained(tmp_path: Path, base: Path, config: Settings) -> Checkpoint:
    folder = tiny_checkpoint(tmp_path / "weights", base)
    return row_of(weights.inspect(str(folder), [""], config))


@pytest.fixture
def untrained(base: Path, config: Settings) -> Checkpoint:
    return row_of(weights.inspect_untrained(base, config))


def test_a_row_leads_to_the_models_it_was_made_of(trained: Checkpoint, config: Settings) -> None:
    models = weights.load(trained, config)
    assert models.weights_hash == trained.weights_hash
    assert models.fingerprint == trained.fingerprint
    assert models.checkpoint.trained


def test_an_untrained_one_is_made_of_its_base_and_its_numbers_alone(
    untrained: Checkpoint, config: Settings
) -> None:
    other = config.model_copy(update={"compression_rate": 8, "doc_max_length": 64})
    models = weights.load(untrained, other)
    assert models.weights_hash == untrained.weights_hash
    assert models.fingerprint == untrained.fingerprint
    assert models.checkpoint.config.compr_rate == 16
    assert (models.checkpoint.name, models.checkpoint.trained) == ("untrained-32x16", False)


def test_an_untrained_one_over_another_base_is_refused(
    untrained: Checkpoint, config: Settings, tmp_path: Path
) -> None:
    untrained.base = str(tiny_base(tmp_path / "other", seed=7))
    alone = config.model_copy(update={"base_model": ""})
    with pytest.raises(CheckpointMismatch, match=f"registered were {untrained.weights_hash}"):
        weights.load(untrained, alone)
    assert weights.load(untrained, config).weights_hash == untrained.weights_hash


def test_a_base_that_is_gone_is_replaced_by_that_of_the_settings(
    trained: Checkpoint, config: Settings, base: Path
) -> None:
    trained.base = "/nowhere/at/all"
    assert weights.bases(trained, config) == [str(base), "/nowhere/at/all"]
    assert weights.load(trained, config).weights_hash == trained.weights_hash


def test_a_base_that_is_there_comes_first(
    trained: Checkpoint, config: Settings, tmp_path: Path
) -> None:
    config = config.model_copy(update={"base_model": str(tmp_path)})
    assert weights.bases(trained, config) == [trained.base, str(tmp_path)]


def test_a_folder_that_is_gone_is_named(trained: Checkpoint, config: Settings) -> None:
    assert trained.path
    Path(trained.path).rename(f"{trained.path}-moved")
    with pytest.raises(ModelMissing, match=trained.path):
        weights.load(trained, config)


def test_a_folder_that_holds_other_weights_by_now_is_refused(
    trained: Checkpoint, config: Settings, base: Path, tmp_path: Path
) -> None:
    assert trained.path
    Path(trained.path).rename(tmp_path / "before")
    tiny_checkpoint(Path(trained.path), base, rate=8)
    with pytest.raises(CheckpointMismatch, match=r"weights holds weights .*; registered were"):
        weights.load(trained, config)


def test_trained_weights_without_a_folder_are_refused(
    trained: Checkpoint, config: Settings
) -> None:
    trained.path = None
    with pytest.raises(InvalidCheckpoint, match="no folder of its weights"):
        weights.load(trained, config)
