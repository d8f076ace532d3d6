from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clara.errors import InvalidCheckpoint
from clara.model import original
from clara.model.checkpoint import Checkpoint, load, save, untrained
from clara.model.models import Models
from tests.clara.model.golden import CASES, FOLDER
from tests.tiny import HIDDEN

Opened = Callable[..., Models]


def pickled(folder: Path) -> dict[str, Tensor]:
    """Every tensor of an original folder that counts, by file, adapter and key."""
    adapters = torch.load(folder / original.ADAPTERS, weights_only=True)
    rows = torch.load(folder / original.ROWS, weights_only=True)
    return {f"rows/{key}": tensor for key, tensor in rows.items()} | {
        f"{name}/{key}": tensor
        for name, tensors in adapters.items()
        for key, tensor in tensors.items()
        if ".lora_" in key
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit: keys, types, values."""
    return one.keys() == other.keys() and all(
        tensor.dtype == other[key].dtype and torch.equal(tensor, other[key])
        for key, tensor in one.items()
    )


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


@pytest.mark.parametrize("case", CASES)
def test_published_checkpoints_keep_every_bit_through_our_form_and_back(
    case: str, tmp_path: Path
) -> None:
    source = FOLDER / "checkpoints" / case
    expected = json.loads((FOLDER / "cases" / case / "expected.json").read_text(encoding="utf-8"))
    first = load(source)
    ours = load(save(first, tmp_path / "ours"))
    back = original.write(ours, tmp_path / "back", base=FOLDER / expected["base"], dtype=None)
    assert same(pickled(source), pickled(back))
    assert load(back).config == ours.config == first.config
    before, after = config_of(source), config_of(back)
    assert {name: before[name] for name in before if name in original.FIELDS} == {
        name: after[name] for name in after if name in original.FIELDS
    }
    assert after["decoder_model_name"] == before["decoder_model_name"]
    again = load(save(load(back), tmp_path / "again"))
    assert (again.name, again.licence, again.notes) == (first.name, first.licence, first.notes)


@pytest.mark.parametrize("case", CASES)
def test_published_checkpoints_are_written_in_bfloat16_without_loss(
    case: str, tmp_path: Path
) -> None:
    first = load(FOLDER / "checkpoints" / case)
    expected = json.loads((FOLDER / "cases" / case / "expected.json").read_text(encoding="utf-8"))
    base = FOLDER / expected["base"]
    assert not original.rounds(first, base, torch.bfloat16)
    back = pickled(original.write(first, tmp_path / "back", base=base))
    source = pickled(FOLDER / "checkpoints" / case)
    assert {tensor.dtype for tensor in back.values()} == {torch.bfloat16}
    assert same({key: tensor.float() for key, tensor in back.items()}, floats(source))


def floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.float() for key, tensor in tensors.items()}


def test_what_was_written_answers_and_compresses_as_before(
    trained: Checkpoint, base: Path, models: Models, opened: Opened, tmp_path: Path
) -> None:
    known = replace(trained, licence="Apache-2.0", base_hash="x", notes=("made for a test",))
    found = load(original.write(known, tmp_path / "theirs", base=base, dtype=None))
    assert (found.name, found.licence, found.base_hash) == ("tiny", "Apache-2.0", "x")
    assert found.notes == ("made for a test",)
    assert found.config == trained.config
    again = opened(replace(found, base_hash=None))
    latents = [m.compressor.compress(["tea"])[0] for m in (models, again)]
    assert torch.equal(*latents)
    answers = [
        m.generator.answer_from_latents("Who?", [latents[0]], max_new_tokens=8).token_ids
        for m in (models, again)
    ]
    assert answers[0] == answers[1]


def test_rounding_to_bfloat16_is_told_apart_from_storing_what_is_bfloat16_anyway(
    trained: Checkpoint, base: Path, tmp_path: Path
) -> None:
    assert original.rounds(trained, base, torch.bfloat16)
    short = load(original.write(trained, tmp_path / "short", base=base))
    assert not original.rounds(short, base, torch.bfloat16)
    for role, adapter in trained.adapters.items():
        for key, tensor in adapter.items():
            assert torch.equal(short.adapters[role][key], tensor.bfloat16())


def test_a_written_folder_has_the_published_files_fields_and_keys(
    trained: Checkpoint, base: Path, tmp_path: Path
) -> None:
    folder = original.write(trained, tmp_path / "theirs", base=base)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapters.pth",
        "config.json",
        "decoder_first_last_layers.pth",
    ]
    config = config_of(folder)
    assert config.pop("decoder_model_name") == str(base)
    config.pop("provenance")
    assert config == {
        "model_type": "CLaRa",
        "compr_rate": 4,
        "doc_max_length": 32,
        "sep": True,
        "different_mem_tokens": True,
        "lora_r": 4,
        "generation_top_k": 5,
        "training_stage": "stage2",
        "kbtc_training": False,
        "optimize_mem_tokens": True,
        "quantization": "no",
        "training_form": "both_separately",
        "load_adapters": True,
        "lora": True,
        "pure_inference": True,
    }
    keys = {key.split("/")[0] for key in pickled(folder)}
    assert keys == {"rows", "encoder_adapter", "query_reasoner_adapter", "decoder_adapter"}
    assert {"rows/model.embed_tokens.weight", "rows/lm_head.weight"} <= pickled(folder).keys()
    sizes = sum(tensor.nbytes for tensor in pickled(folder).values())
    on_disk = sum(path.stat().st_size for path in folder.glob("*.pth"))
    assert on_disk < 2 * sizes  # views would bring what they are views of


def test_a_rate_that_does_not_divide_the_length_survives(
    trained: Checkpoint, base: Path, tmp_path: Path
) -> None:
    config = replace(trained.config, compr_rate=5, rates=(5,), floor_rows=True)
    folder = original.write(replace(trained, config=config, rows={}), tmp_path / "x", base=base)
    assert load(folder).config == config


def test_only_memory_checkpoints_with_both_adapters_can_be_written(
    trained: Checkpoint, base: Path, tmp_path: Path
) -> None:
    config = replace(trained.config, kind="pooled", different_mem_tokens=False)
    with pytest.raises(InvalidCheckpoint, match="is of the pooled kind; the original form") as e:
        original.write(replace(trained, config=config), tmp_path / "x", base=base)
    assert e.value.field == "kind"
    fresh = untrained(base, compr_rate=4, doc_max_length=32)
    with pytest.raises(InvalidCheckpoint, match="has no adapter for the compressor, which the ori"):
        original.write(fresh, tmp_path / "x", base=base)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_overwritten_and_never_left_half_written(
    trained: Checkpoint, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original.write(trained, tmp_path / "one", base=base)
    with pytest.raises(InvalidCheckpoint, match="exists already"):
        original.write(trained, tmp_path / "one", base=base)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        original.write(trained, tmp_path / "two", base=base)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_base_of_another_width_is_refused_before_anything_is_written(
    trained: Checkpoint, base: Path, tmp_path: Path
) -> None:
    rows = {"embed": torch.zeros(trained.config.added, HIDDEN + 1)}
    with pytest.raises(InvalidCheckpoint, match=r"embed rows have shape \(11, 33\)"):
        original.write(replace(trained, rows=rows), tmp_path / "x", base=base)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("apple/CLaRa-7B-Instruct/compression-16", "apple-amlr (research only)"),
        (
            "/home/me/.cache/huggingface/hub/models--apple--CLaRa-7B-E2E/snapshots/1/compression-16",
            "apple-amlr (research only)",
        ),
        ("someone/CLaRa-7B-Instruct", ""),
        ("/data/checkpoints/mine", ""),
    ],
)
def test_published_weights_carry_their_licence(name: str, licence: str) -> None:
    assert original.licence_of(name) == licence
