from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clara.errors import CheckpointMismatch, InvalidCheckpoint, ModelMissing
from clara.model.checkpoint import (
    MIN_SCORE,
    Checkpoint,
    CheckpointConfig,
    load,
    save,
    untrained,
)
from clara.model.models import Models
from clara.types import Mode

Opened = Callable[..., Models]


def test_a_saved_checkpoint_loads_as_it_was(trained: Checkpoint, tmp_path: Path) -> None:
    found = load(save(replace(trained, licence="Apache-2.0", base_hash="b"), tmp_path / "one"))
    assert found.config == trained.config
    assert (found.name, found.licence, found.base_hash) == ("tiny", "Apache-2.0", "b")
    assert found.trained
    assert found.adapters.keys() == trained.adapters.keys()
    for role, tensors in trained.adapters.items():
        assert all(torch.equal(found.adapters[role][key], t) for key, t in tensors.items())
    assert torch.equal(found.rows["embed"], trained.rows["embed"])


def test_an_untrained_checkpoint_can_be_saved_and_loaded(base: Path, tmp_path: Path) -> None:
    fresh = untrained(base, compr_rate=4, doc_max_length=32)
    assert load(save(fresh, tmp_path / "fresh")) == fresh


def test_saving_leaves_nothing_but_the_folder_and_never_overwrites(
    trained: Checkpoint, tmp_path: Path
) -> None:
    save(trained, tmp_path / "one")
    with pytest.raises(InvalidCheckpoint, match="exists already"):
        save(trained, tmp_path / "one")
    assert os.listdir(tmp_path) == ["one"]  # noqa: PTH208


def test_the_least_score_is_the_one_asked_for_or_measured_or_the_published(
    trained: Checkpoint, tmp_path: Path
) -> None:
    measured = replace(trained, config=replace(trained.config, min_score=0.2, reads_text=True))
    found = load(save(measured, tmp_path / "measured"))
    assert (found.config.min_score, found.config.reads_text) == (0.2, True)
    assert (found.least_score(None), found.least_score(0.0)) == (0.2, 0.0)
    assert (trained.least_score(None), trained.least_score(0.7)) == (MIN_SCORE, 0.7)


def test_auto_reads_latents_of_a_trained_checkpoint_unless_text_was_measured_to_be_better(
    trained: Checkpoint,
) -> None:
    text = replace(trained, config=replace(trained.config, prefers_text=True))
    assert trained.auto_mode is Mode.LATENT
    assert text.auto_mode is replace(trained, trained=False).auto_mode is Mode.TEXT


def test_every_rate_has_a_refusal_margin_of_its_own(tmp_path: Path, trained: Checkpoint) -> None:
    config = CheckpointConfig(
        "b",
        compr_rate=4,
        doc_max_length=32,
        different_mem_tokens=False,
        kind="pooled",
        rates=(4, 8),
        refusal_margins=(1, 2.5),
    )
    assert (config.refusal_margin, replace(config, compr_rate=8).refusal_margin) == (1, 2.5)
    assert trained.config.refusal_margin == 0
    measured = replace(trained.config, text_refusal_margin=0.5, refusal_margins=(1.5,))
    found = load(save(replace(trained, config=measured), tmp_path / "measured")).config
    assert (found.text_refusal_margin, found.refusal_margins) == (0.5, (1.5,))


def test_fields_that_came_later_change_no_hash_until_they_are_set(trained: Checkpoint) -> None:
    later_ones = {"min_score", "reads_text", "prefers_text", "latent_weight"}
    later_ones |= {"interaction", "text_refusal_margin", "refusal_margins"}
    assert not later_ones & set(trained.config.numbers())
    later = replace(trained.config, min_score=0.2)
    assert later.numbers() == {**trained.config.numbers(), "min_score": 0.2}


def test_the_base_can_be_named_anew_when_loading(trained: Checkpoint, tmp_path: Path) -> None:
    assert load(save(trained, tmp_path / "one"), base="elsewhere").config.base == "elsewhere"


def test_roles_with_one_adapter_share_one_model_and_without_any_all_do(
    trained: Checkpoint, opened: Opened
) -> None:
    fresh = opened(untrained(trained.config.base, compr_rate=4, doc_max_length=32))
    assert fresh.compressor.trunk is fresh.reasoner.trunk
    assert fresh.compressor.trunk is fresh.generator.model.base_model
    two = {role: trained.adapters[role] for role in ("compressor", "generator")}
    without_reasoner = opened(replace(trained, adapters=two))
    assert without_reasoner.reasoner.trunk is without_reasoner.compressor.trunk
    assert without_reasoner.generator.model.base_model is not without_reasoner.compressor.trunk


def test_another_base_of_the_same_shape_is_refused_where_the_right_one_is_known(
    trained: Checkpoint, opened: Opened
) -> None:
    with pytest.raises(CheckpointMismatch, match="was trained on base other"):
        opened(replace(trained, base_hash="other"))


def test_memory_rows_of_another_height_are_refused(trained: Checkpoint, opened: Opened) -> None:
    rows = {"embed": torch.zeros(5, 32)}
    with pytest.raises(InvalidCheckpoint, match=r"embed rows have shape \(5, 32\)"):
        opened(replace(trained, rows=rows))


# what a folder may lack


@pytest.fixture
def folder(trained: Checkpoint, tmp_path: Path) -> Path:
    """A sound checkpoint in our own form, for a test to damage."""
    return save(trained, tmp_path / "checkpoint")


@pytest.mark.parametrize("name", ["adapters.safetensors", "rows.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InvalidCheckpoint, match=f"has no {name}") as caught:
        load(folder)
    assert caught.value.field == name


@pytest.mark.parametrize("name", ["adapters.safetensors", "rows.safetensors", "manifest.json"])
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidCheckpoint, match=f"{name} cannot be read"):
        load(folder)


def test_a_changed_byte_is_noticed(folder: Path) -> None:
    path = folder / "adapters.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=r"its hash is not the one in manifest.json"):
        load(folder)


@pytest.mark.parametrize("role", ["compressor", "generator"])
def test_a_trained_checkpoint_without_a_needed_adapter_is_refused(
    trained: Checkpoint, tmp_path: Path, role: str
) -> None:
    rest = {name: tensors for name, tensors in trained.adapters.items() if name != role}
    folder = save(replace(trained, adapters=rest), tmp_path / "part")
    with pytest.raises(InvalidCheckpoint, match=f"no adapter for the {role}"):
        load(folder)


def test_an_adapter_for_an_unknown_role_is_refused(trained: Checkpoint, tmp_path: Path) -> None:
    more = {**trained.adapters, "poet": trained.adapters["generator"]}
    folder = save(replace(trained, adapters=more), tmp_path / "more")
    with pytest.raises(InvalidCheckpoint, match="an adapter 'poet'"):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(
    trained: Checkpoint, tmp_path: Path, value: float
) -> None:
    key, tensor = next(iter(trained.adapters["generator"].items()))
    broken = tensor.clone()
    broken[0, 0] = value
    adapters = {**trained.adapters, "generator": {**trained.adapters["generator"], key: broken}}
    folder = save(replace(trained, adapters=adapters), tmp_path / "broken")
    with pytest.raises(InvalidCheckpoint, match="not numbers") as caught:
        load(folder)
    assert caught.value.field == f"generator.{key}"


def test_another_format_version_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InvalidCheckpoint, match="format 99; this release reads 1"):
        load(folder)


def test_a_place_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="no model at"):
        load(tmp_path / "nowhere")
    with pytest.raises(InvalidCheckpoint, match=r"no checkpoint, neither manifest.json nor config"):
        load(tmp_path)


# configuration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compr_rate": 5}, "32 is not a multiple of compr_rate 5"),
        ({"compr_rate": 0}, "compr_rate must be a whole number from 1 on, got 0"),
        ({"doc_max_length": "32"}, "doc_max_length must be a whole number from 1 on, got '32'"),
        ({"compr_rate": 64, "floor_rows": True}, "leaves no memory token for 32 tokens"),
        ({"interaction": "early"}, "interaction is 'early'; known are mean, late"),
        ({"interaction": "late"}, "memory tokens are compared as published"),
        ({"refusal_margins": [1.0, 2.0]}, "refusal_margins has 2 numbers for 1 rates"),
        ({"refusal_margins": [-1.0]}, "a refusal margin is -1.0; it must be from 0 on"),
        ({"text_refusal_margin": float("nan")}, "a refusal margin is nan"),
        ({"refusal_margins": ["1"]}, "refusal_margins must be a list of numbers, got"),
        ({"training_stage": "stage9"}, "training_stage is 'stage9'; known are untrained, stage1"),
    ],
)
def test_a_configuration_that_cannot_be_right_is_refused(
    change: dict[str, Any], message: str
) -> None:
    values: dict[str, Any] = {"base": "b", "compr_rate": 4, "doc_max_length": 32, **change}
    with pytest.raises(InvalidCheckpoint, match=message):
        CheckpointConfig(**values)


def test_an_original_folder_may_round_its_rows_down() -> None:
    config = CheckpointConfig("b", compr_rate=5, doc_max_length=32, floor_rows=True)
    assert config.n_mem == 6


# the original form


@pytest.fixture
def original_folder(trained: Checkpoint, base: Path, opened: Opened, tmp_path: Path) -> Path:
    """The trained checkpoint as the published models are stored."""
    whole = opened(trained).generator.model
    names = {
        "encoder_adapter": "compressor",
        "query_reasoner_adapter": "reasoner",
        "decoder_adapter": "generator",
    }
    adapters = {theirs: dict(trained.adapters[ours]) for theirs, ours in names.items()}
    adapters["decoder_adapter"]["model.embed_tokens.weight"] = torch.full((3, 3), float("nan"))
    torch.save(adapters, tmp_path / "adapters.pth")
    rows = {
        "model.embed_tokens.weight": whole.get_input_embeddings().weight,
        "lm_head.weight": whole.get_output_embeddings().weight,
    }
    torch.save(rows, tmp_path / "decoder_first_last_layers.pth")
    config = {
        "model_type": "CLaRa",
        "decoder_model_name": "/nowhere/base",
        "compr_rate": 4,
        "doc_max_length": 32,
        "sep": True,
        "different_mem_tokens": True,
        "lora_r": 4,
        "training_stage": "stage2",
        "some_unknown_field": [1],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_an_original_folder_gives_the_same_latents_as_our_own_form(
    original_folder: Path, base: Path, models: Models, opened: Opened
) -> None:
    found = opened(load(original_folder, base=base))
    pairs = zip(
        found.compressor.compress(["tea"]), models.compressor.compress(["tea"]), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)


def test_key_prefixes_and_adapter_names_inside_keys_are_accepted(
    original_folder: Path, base: Path, trained: Checkpoint
) -> None:
    path = original_folder / "adapters.pth"
    adapters = torch.load(path, weights_only=True)
    adapters["encoder_adapter"] = {
        f"base_model.model.{key}".replace("_A.weight", "_A.encoder_adapter.weight"): tensor
        for key, tensor in adapters["encoder_adapter"].items()
    }
    torch.save(adapters, path)
    assert (
        load(original_folder).adapters["compressor"].keys() == trained.adapters["compressor"].keys()
    )


def test_stage_2_without_a_reasoner_uses_the_compressors_adapter(original_folder: Path) -> None:
    path = original_folder / "adapters.pth"
    adapters = torch.load(path, weights_only=True)
    del adapters["query_reasoner_adapter"]
    torch.save(adapters, path)
    found = load(original_folder)
    assert found.adapters["reasoner"] is found.adapters["compressor"]


def test_an_original_folder_saved_in_our_form_keeps_its_weights(
    original_folder: Path, tmp_path: Path
) -> None:
    first = load(original_folder)
    again = load(save(first, tmp_path / "ours"))
    assert again.config == first.config
    assert torch.equal(again.rows["embed"], first.rows["embed"])


class Opener:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch opened",)


def test_a_file_with_code_in_it_is_not_opened(
    original_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(original_folder)
    torch.save({"encoder_adapter": Opener()}, original_folder / "adapters.pth")
    with pytest.raises(InvalidCheckpoint, match="holds more than tensors and is not opened"):
        load(original_folder)
    assert not (original_folder / "opened").exists()


@pytest.mark.parametrize("name", ["adapters.pth", "decoder_first_last_layers.pth"])
def test_a_truncated_original_file_is_refused(original_folder: Path, name: str) -> None:
    path = original_folder / name
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InvalidCheckpoint, match=name):
        load(original_folder)


def test_an_unknown_adapter_in_an_original_folder_is_refused(original_folder: Path) -> None:
    path = original_folder / "adapters.pth"
    adapters: dict[str, dict[str, Tensor]] = torch.load(path, weights_only=True)
    torch.save({**adapters, "poet_adapter": {}}, path)
    with pytest.raises(InvalidCheckpoint, match="an adapter 'poet_adapter'"):
        load(original_folder)


# bases that cannot serve


@pytest.fixture
def own_base(base: Path, tmp_path: Path) -> Path:
    """A copy of the base, for a test to damage."""
    return Path(shutil.copytree(base, tmp_path / "base"))


def open_untrained(base: Path, opened: Opened) -> Models:
    return opened(untrained(base, compr_rate=4, doc_max_length=32))


def edit(path: Path, **change: object) -> None:
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_a_base_without_a_chat_template_is_refused(own_base: Path, opened: Opened) -> None:
    (own_base / "chat_template.jinja").unlink()
    with pytest.raises(InvalidCheckpoint, match="has no chat template"):
        open_untrained(own_base, opened)


def test_a_base_without_a_bos_token_is_refused(own_base: Path, opened: Opened) -> None:
    edit(own_base / "tokenizer_config.json", bos_token=None)
    with pytest.raises(InvalidCheckpoint, match="has no bos token and no rule gives it one"):
        open_untrained(own_base, opened)


def test_a_qwen_base_without_bos_starts_with_its_first_own_special_token(
    own_base: Path, opened: Opened
) -> None:
    special = ["<|im_start|>", "<|im_end|>"]
    edit(own_base / "tokenizer_config.json", bos_token=None, additional_special_tokens=special)
    qwen = own_base.rename(own_base.parent / "Qwen-tiny")
    tokens = open_untrained(qwen, opened).tokens
    assert tokens.tokenizer.convert_ids_to_tokens([tokens.bos, tokens.eos]) == special


def test_a_base_without_a_pad_token_fills_with_bos(own_base: Path, opened: Opened) -> None:
    edit(own_base / "tokenizer_config.json", pad_token=None)
    tokens = open_untrained(own_base, opened).tokens
    assert tokens.pad == tokens.bos


def test_a_base_without_safetensors_is_refused(own_base: Path, opened: Opened) -> None:
    (own_base / "model.safetensors").rename(own_base / "pytorch_model.bin")
    with pytest.raises(InvalidCheckpoint, match=r"has no .safetensors file"):
        open_untrained(own_base, opened)


def test_a_truncated_base_is_refused(own_base: Path, opened: Opened) -> None:
    weights = own_base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InvalidCheckpoint, match=r"cannot be loaded"):
        open_untrained(own_base, opened)
