"""Checkpoints that cannot be right: each is refused by name, saying what was expected and found."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from clara.errors import InvalidCheckpoint, ModelMissing
from clara.model import original
from clara.model.checkpoint import Checkpoint, load, save
from clara.model.models import Models

Opened = Callable[..., Models]
Tensors = Mapping[str, Tensor]

shared = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
"""One folder serves all examples: each writes the whole file anew."""


@pytest.fixture(scope="session")
def sound(trained: Checkpoint, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One checkpoint in both forms, in `own` and in `original`."""
    folder = tmp_path_factory.mktemp("sound")
    save(replace(trained, base_hash="b"), folder / "own")
    original.write(trained, folder / "original", base=base)
    return folder


@pytest.fixture
def own(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound / "own", tmp_path / "own"))


@pytest.fixture
def theirs(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound / "original", tmp_path / "original"))


def edit(path: Path, change: Mapping[str, object]) -> None:
    """Set fields of a JSON file; `config.x` means the field x of config. None takes one out."""
    content = json.loads(path.read_text())
    for name, value in change.items():
        place = content["config"] if name.startswith("config.") else content
        place[name.removeprefix("config.")] = value
        if value is None:
            del place[name.removeprefix("config.")]
    path.write_text(json.dumps(content))


# folders


def test_an_empty_folder_is_told_from_one_of_several_checkpoints(own: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidCheckpoint, match=r"neither manifest.json nor config.json") as caught:
        load(tmp_path / "empty")
    assert caught.value.field == str(tmp_path / "empty")
    with pytest.raises(InvalidCheckpoint, match="; its sub-folders own do") as caught:
        load(tmp_path)
    assert caught.value.remedy == f"Give {own}, or another of them"


def test_a_file_where_a_folder_is_due_is_refused(own: Path) -> None:
    with pytest.raises(ModelMissing, match="it is a file; a folder is expected"):
        load(own / "adapters.safetensors")


def test_a_folder_where_a_file_is_due_is_refused(theirs: Path) -> None:
    (theirs / "adapters.pth").unlink()
    (theirs / "adapters.pth").mkdir()
    with pytest.raises(InvalidCheckpoint, match=r"has no adapters.pth"):
        load(theirs)


@pytest.mark.parametrize("name", ["adapters.pth", "decoder_first_last_layers.pth"])
def test_a_missing_original_file_is_named(theirs: Path, name: str) -> None:
    (theirs / name).unlink()
    with pytest.raises(InvalidCheckpoint, match=f"has no {name}") as caught:
        load(theirs)
    assert caught.value.field == name


# files cut short, and files of something else


@pytest.mark.parametrize("name", ["adapters.pth", "decoder_first_last_layers.pth"])
@shared
@given(part=st.floats(0, 1, exclude_max=True))
def test_an_original_file_cut_anywhere_is_refused(
    sound: Path, tmp_path: Path, name: str, part: float
) -> None:
    shutil.copytree(sound / "original", tmp_path / "original", dirs_exist_ok=True)
    whole = (sound / "original" / name).read_bytes()
    (tmp_path / "original" / name).write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(InvalidCheckpoint, match=f"{name} cannot be read"):
        load(tmp_path / "original")


@pytest.mark.parametrize("name", ["adapters.safetensors", "rows.safetensors", "manifest.json"])
@shared
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_file_of_our_own_form_cut_anywhere_is_refused(
    sound: Path, tmp_path: Path, name: str, part: float
) -> None:
    shutil.copytree(sound / "own", tmp_path / "own", dirs_exist_ok=True)
    whole = (sound / "own" / name).read_bytes().rstrip()
    (tmp_path / "own" / name).write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(InvalidCheckpoint, match=f"{name} cannot be read"):
        load(tmp_path / "own")


class Opener:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch opened",)


def test_a_bare_pickle_with_code_is_not_opened_and_its_wish_is_named(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(theirs)
    path = theirs / "decoder_first_last_layers.pth"
    torch.save({"model.embed_tokens.weight": Opener()}, path, _use_new_zipfile_serialization=False)
    wish = r"holds more than tensors and is not opened: it asks for (posix|nt)\.system"
    with pytest.raises(InvalidCheckpoint, match=wish):
        load(theirs)
    assert not (theirs / "opened").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no pickle at all", "it is no file of tensors, or a damaged one"),
        (pickle.dumps({}, protocol=2), "cannot be read: RuntimeError"),
        ([1, 2], "it is no dictionary by name"),
        ({1: torch.zeros(2)}, "it is no dictionary by name"),
        ({"encoder_adapter": [1]}, "an adapter in it is no dictionary"),
        ({"encoder_adapter": {"a.lora_A.weight": 3}}, "'a.lora_A.weight' is 3, not a tensor"),
        ({"encoder_adapter": {3: torch.zeros(2)}}, "it holds the unknown key 3"),
        ({"encoder_adapter": {"a.dora": torch.zeros(2)}}, "it holds the unknown key 'a.dora'"),
        (
            {"encoder_adapter": {"a.lora_A.weight": torch.zeros(2, dtype=torch.int64)}},
            "is torch.int64, torch.strided; plain floats are expected",
        ),
        (
            {"encoder_adapter": {"a.lora_A.weight": torch.zeros(2, 2).to_sparse()}},
            "torch.sparse_coo; plain floats are expected",
        ),
    ],
    ids=str,
)
def test_an_adapter_file_of_something_else_is_refused(
    theirs: Path, content: object, message: str
) -> None:
    path = theirs / "adapters.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InvalidCheckpoint, match=message):
        load(theirs)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "it holds no embedding"),
        ({"lm_head.weight": torch.zeros(2, 2)}, "it holds no embedding"),
        ({"model.norm.weight": torch.zeros(2)}, "it holds the unknown key 'model.norm.weight'"),
        ({"model.embed_tokens.weight": None}, "'model.embed_tokens.weight' is None, not a tensor"),
    ],
)
def test_a_row_file_of_something_else_is_refused(
    theirs: Path, rows: dict[str, object], message: str
) -> None:
    torch.save(rows, theirs / "decoder_first_last_layers.pth")
    with pytest.raises(InvalidCheckpoint, match=message):
        load(theirs)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_original_weights_that_are_not_numbers_are_refused(theirs: Path, value: float) -> None:
    path = theirs / "decoder_first_last_layers.pth"
    rows = torch.load(path, weights_only=True)
    rows["lm_head.weight"][5, 5] = value
    torch.save(rows, path)
    with pytest.raises(InvalidCheckpoint, match=r"rows 'head' holds values that are not numbers"):
        load(theirs)


@pytest.mark.parametrize("name", ["encoder_adapter", "decoder_adapter"])
def test_an_original_folder_without_a_needed_adapter_is_refused(theirs: Path, name: str) -> None:
    path = theirs / "adapters.pth"
    adapters = torch.load(path, weights_only=True)
    del adapters[name]
    torch.save(adapters, path)
    role = {"encoder_adapter": "compressor", "decoder_adapter": "generator"}[name]
    with pytest.raises(InvalidCheckpoint, match=f"has no adapter for the {role}"):
        load(theirs)


# fields


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compr_rate": "16"}, "compr_rate must be a whole number from 1 on, got '16'"),
        ({"compr_rate": 0}, "compr_rate must be a whole number from 1 on, got 0"),
        ({"compr_rate": 4.0}, r"compr_rate must be a whole number from 1 on, got 4\.0"),
        ({"compr_rate": True}, "compr_rate must be a whole number from 1 on, got True"),
        ({"compr_rate": None, "sep": None}, "cannot be read: it lacks compr_rate, sep"),
        ({"doc_max_length": [8]}, r"doc_max_length must be a whole number from 1 on, got \[8\]"),
        (
            {"doc_max_length": 4 * 10**15},
            "rows have shape .*; the configuration adds 1000000",
        ),
        ({"lora_r": -1}, "lora_r must be a whole number from 1 on, got -1"),
        ({"sep": "yes"}, "sep must be true or false, got 'yes'"),
        ({"different_mem_tokens": 1}, "different_mem_tokens must be true or false, got 1"),
        ({"training_stage": 2}, "training_stage must be a text, got 2"),
        ({"training_stage": "stage7"}, "training_stage is 'stage7'; known are"),
        ({"decoder_model_name": {}}, "decoder_model_name must be a text, it is {}"),
        ({"provenance": "me"}, "provenance must be an object, it is 'me'"),
        ({"provenance": {"licence": 3}}, "licence must be a text, it is 3"),
        ({"quantization": "int2"}, "quantization is 'int2'; known are no, int4, int8"),
        ({"quantization": 4}, "quantization is 4; known are no, int4, int8"),
        ({"model_type": "llama"}, "describes a model of type 'llama'; a checkpoint's is 'CLaRa'"),
        ({"model_type": None}, "describes a model of type None; a checkpoint's is 'CLaRa'"),
    ],
    ids=str,
)
def test_a_wrong_field_of_an_original_config_is_named(
    theirs: Path, change: dict[str, object], message: str
) -> None:
    edit(theirs / "config.json", change)
    with pytest.raises(InvalidCheckpoint, match=message) as caught:
        load(theirs)
    assert caught.value.field


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name must be a text, it is 3"),
        ({"licence": None}, "it lacks licence"),
        ({"trained": "yes"}, "trained must be true or false, it is 'yes'"),
        ({"base_hash": 7}, "base_hash must be a text, it is 7"),
        ({"fingerprint": []}, r"fingerprint must be a text, it is \[\]"),
        ({"notes": "one"}, "notes must be a list, it is 'one'"),
        ({"notes": [1]}, "notes must be a list of texts"),
        ({"config": []}, r"config must be an object, it is \[\]"),
        ({"config": {}}, "the configuration lacks base, compr_rate, doc_max_length"),
        ({"files": None}, "it lacks files"),
        ({"files": ["a"]}, "files must be an object"),
        ({"files": {}}, r"expected None, found [0-9a-f]{32}"),
        ({"format": "1"}, "has format '1'; this release reads 1"),
        ({"config.base": 3}, "base must be a text, got 3"),
        ({"config.compr_rate": "4"}, "compr_rate must be a whole number from 1 on, got '4'"),
        ({"config.compr_rate": 8}, "rate 8 is none of those this checkpoint was trained for: 4"),
        ({"config.rates": 4}, "rates must be a list of whole numbers from 1 on, got 4"),
        ({"config.rates": "4"}, "rates must be a list of whole numbers from 1 on, got '4'"),
        ({"config.kind": "poetic"}, "kind is 'poetic'; known are memory, pooled"),
        ({"config.kind": None, "config.floor_rows": 0}, "floor_rows must be true or false, got 0"),
        ({"config.kind": "pooled"}, "pooled latents stand on one memory token"),
    ],
    ids=str,
)
def test_a_wrong_field_of_a_manifest_is_named(
    own: Path, change: dict[str, object], message: str
) -> None:
    edit(own / "manifest.json", change)
    with pytest.raises(InvalidCheckpoint, match=message) as caught:
        load(own)
    assert caught.value.field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@shared
@given(data=st.data(), value=JSON)
def test_any_value_in_any_field_loads_or_is_refused_by_name(
    sound: Path, tmp_path: Path, data: st.DataObject, value: object
) -> None:
    form, file = data.draw(st.sampled_from([("own", "manifest.json"), ("original", "config.json")]))
    folder = Path(shutil.copytree(sound / form, tmp_path / form, dirs_exist_ok=True))
    content = json.loads((sound / form / file).read_text())
    place = content["config"] if form == "own" and data.draw(st.booleans()) else content
    place[data.draw(st.sampled_from(sorted(place)))] = value
    (folder / file).write_text(json.dumps(content))
    field: str | None = "none is at fault"
    try:
        load(folder)
    except InvalidCheckpoint as error:
        field = error.field
    assert field


@pytest.mark.parametrize("content", [b"[]", b"3", b"{", b"\xff\xfe", b"", b"[" * 100_000])
@pytest.mark.parametrize("form", ["own", "original"])
def test_a_description_that_is_no_json_object_is_refused(
    own: Path, theirs: Path, form: str, content: bytes
) -> None:
    path = own / "manifest.json" if form == "own" else theirs / "config.json"
    path.write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=f"{path.name} cannot be read") as caught:
        load(path.parent)
    assert caught.value.field == path.name


@pytest.mark.parametrize("bits", ["int4", "int8"])
def test_weights_trained_beside_a_quantised_base_are_taken_and_say_so(
    theirs: Path, bits: str, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(theirs / "config.json", {"quantization": bits})
    note = f"trained beside a base in {bits}; used here beside the base's own weights"
    found = load(theirs)
    assert found.notes == (note,)
    assert note in caplog.text
    assert load(save(found, tmp_path / "ours")).notes == (note,)
    assert load(original.write(found, tmp_path / "back", base=base)).notes == (note,)


def test_a_base_model_is_not_taken_for_a_checkpoint(base: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="describes a model of type 'llama'") as caught:
        load(base)
    assert caught.value.remedy
    assert "a base model is named apart" in caught.value.remedy


def test_a_lost_head_is_not_replaced_by_the_bases(theirs: Path, base: Path, opened: Opened) -> None:
    path = theirs / "decoder_first_last_layers.pth"
    rows = torch.load(path, weights_only=True)
    del rows["lm_head.weight"]
    torch.save(rows, path)
    with pytest.raises(InvalidCheckpoint, match="a whole embedding but no head") as caught:
        opened(load(theirs, base=base))
    assert caught.value.field == "head"
