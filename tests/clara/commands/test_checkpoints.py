from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from clara import cli, default_models
from clara.commands import checkpoints
from clara.errors import (
    CheckpointMismatch,
    ClaraError,
    InvalidCheckpoint,
    InvalidInput,
    ModelMissing,
)
from clara.model import original
from clara.model.checkpoint import Checkpoint, CheckpointConfig, load, save
from clara.model.fingerprints import base_hash, fingerprint
from clara.settings import settings
from tests.clara.model.conftest import RANK, adapter
from tests.clara.model.hub import Hub, use
from tests.tiny import HIDDEN, tiny_base

GOLDEN = Path(__file__).parent.parent / "model" / "golden"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def trained(base: Path) -> Checkpoint:
    """A checkpoint as a training leaves it, whose folder does not lead to its base."""
    config = CheckpointConfig(
        "/nowhere/base", compr_rate=4, doc_max_length=32, lora_r=RANK, training_stage="stage1_2"
    )
    roles = ("compressor", "generator")
    adapters = {role: adapter(base, seed) for seed, role in enumerate(roles)}
    rows = torch.randn((config.added, HIDDEN), generator=torch.Generator().manual_seed(9))
    return Checkpoint(
        config, adapters, {"embed": rows}, trained=True, name="tiny", base_hash=base_hash(base)
    )


@pytest.fixture
def folder(trained: Checkpoint, tmp_path: Path) -> Path:
    return save(replace(trained, licence="MIT"), tmp_path / "own")


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLARA_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("CLARA_DEVICE", "cpu")
    for name in ("CLARA_CHECKPOINT", "CLARA_BASE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(checkpoints, "default_checkpoint", lambda: None)
    settings.cache_clear()
    yield
    settings.cache_clear()


def clara(*words: object) -> Result:
    """A command that ended well."""
    runner = CliRunner(env={"COLUMNS": "300"})
    done = runner.invoke(cli.app, ["checkpoints", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def refused(*words: object) -> ClaraError:
    """The error a command ended with."""
    with pytest.raises(ClaraError) as caught:
        clara(*words)
    return caught.value


def shown(*words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(clara("show", *words, "--json").stdout)
    return found


# show


def test_a_checkpoint_is_shown_with_all_it_holds(
    trained: Checkpoint, folder: Path, base: Path
) -> None:
    found = clara("show", folder, "--base", base).output
    lines = {" ".join(line.split()) for line in found.splitlines()}
    mark = fingerprint(trained, str(trained.base_hash), dtype=torch.float32)
    numbers = sum(tensor.numel() for tensor in trained.adapters["compressor"].values())
    assert {
        "name tiny (own form, trained)",
        "kind memory",
        "stage stage1_2",
        "rate 4 (default)",
        "lengths passages of up to 32 tokens, latents of up to 8 rows, 5 passages per answer",
        "reads latents and text through the base alone; by default latents",
        "ranking by their mean rows",
        "rank 4",
        f"adapter compressor: {numbers:,} parameters, {numbers * 4 / 1000:.1f} kB float32, rank 4",
        f"adapter generator: {numbers:,} parameters, {numbers * 4 / 1000:.1f} kB float32, rank 4",
        "pooling none",
        "rows embed: 352 parameters, 1.4 kB float32",
        "licence MIT",
        "base /nowhere/base",
        f"at hand in {base}",
        f"base hash {trained.base_hash}",
        f"fingerprint {mark} (float32)",
    } <= lines
    size = (folder / "adapters.safetensors").stat().st_size
    assert f"file adapters.safetensors, {size / 1000:.1f} kB" in lines


def test_what_is_shown_is_there_as_json_too(trained: Checkpoint, folder: Path, base: Path) -> None:
    found = shown(folder)
    assert (found["base_folder"], found["base_hash"]) == (None, trained.base_hash)
    assert found["fingerprints"]["float32"] != found["fingerprints"]["bfloat16"]
    assert found["adapters"]["compressor"]["ranks"] == [4]
    assert found["rates"] == [4]
    assert set(found["files"]) == {"adapters.safetensors", "manifest.json", "rows.safetensors"}
    assert found["files"]["rows.safetensors"] == (folder / "rows.safetensors").stat().st_size
    assert shown(folder, "--base", base) == found | {"base_folder": str(base)}


def test_a_base_is_found_by_its_hash_where_its_name_leads_nowhere(
    folder: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny_base(tmp_path / "other", seed=1)
    for place, found in ((other, None), (base, str(base))):
        monkeypatch.setenv("CLARA_BASE_MODEL", str(place))
        settings.cache_clear()
        assert shown(folder)["base_folder"] == found
    default = tmp_path / "var" / "models" / default_models.BASE.folder
    shutil.copytree(base, default)
    monkeypatch.delenv("CLARA_BASE_MODEL")
    settings.cache_clear()
    assert shown(folder)["base_folder"] == str(default)


def test_the_default_checkpoint_is_the_settings_or_the_source_trees_or_plainly_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused("show", "default")
    assert isinstance(error, ModelMissing)
    assert "this installation has no default checkpoint" in error.message
    monkeypatch.setattr(checkpoints, "default_checkpoint", lambda: folder)
    assert shown("default")["folder"] == str(folder)
    monkeypatch.setenv("CLARA_CHECKPOINT", str(folder / "other"))
    settings.cache_clear()
    assert "no model at" in refused("show", "default").message


def test_weights_of_a_quantised_base_say_so(folder: Path, base: Path, tmp_path: Path) -> None:
    clara("convert", folder, tmp_path / "theirs", "--to", "original", "--base", base)
    path = tmp_path / "theirs" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization": "int4"}))
    note = "trained beside a base in int4; used here beside the base's own weights"
    assert shown(tmp_path / "theirs")["notes"] == [note]
    assert note in clara("convert", path.parent, tmp_path / "again", "--to", "own").output
    assert note in clara("show", tmp_path / "again").output


# convert


def test_a_checkpoint_goes_to_the_original_form_and_back(
    trained: Checkpoint, folder: Path, base: Path, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    done = clara("convert", folder, theirs, "--to", "original", "--base", base, "--dtype", "stored")
    assert f"original form in {theirs}" in done.output
    assert "rounded" not in done.output
    done = clara("convert", theirs, ours, "--to", "own", "--base", base)
    assert "note:" not in done.output
    found = load(ours)
    assert (found.name, found.licence, found.config) == ("tiny", "MIT", trained.config)
    assert found.base_hash == trained.base_hash
    for role, tensors in trained.adapters.items():
        assert all(torch.equal(found.adapters[role][key], t) for key, t in tensors.items())
    assert torch.equal(found.rows["embed"][-11:], trained.rows["embed"])


def test_rounding_is_told(folder: Path, base: Path, tmp_path: Path) -> None:
    done = clara("convert", folder, tmp_path / "theirs", "--to", "original", "--base", base)
    assert "values were rounded to bfloat16; --dtype stored keeps them" in done.output


def test_hash_and_fingerprint_are_noted_with_the_base_at_hand_and_missed_without(
    trained: Checkpoint, base: Path, tmp_path: Path
) -> None:
    unknown = save(replace(trained, base_hash=None), tmp_path / "unknown")
    done = clara("convert", unknown, tmp_path / "a", "--to", "own")
    assert "the base is not at hand (--base): neither hash nor fingerprint noted" in done.output
    assert "the licence is unknown; --licence notes one" in done.output
    done = clara(
        "convert", unknown, tmp_path / "b", "--to", "own", "--base", base, "--licence", "MIT"
    )
    assert "note:" not in done.output
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    mark = fingerprint(trained, base_hash(base), dtype=torch.float32)
    assert (manifest["base_hash"], manifest["fingerprint"]) == (base_hash(base), mark)
    assert manifest["licence"] == "MIT"


def test_a_licence_cannot_be_changed_on_the_way(folder: Path, tmp_path: Path) -> None:
    error = refused("convert", folder, tmp_path / "x", "--to", "own", "--licence", "Apache-2.0")
    assert isinstance(error, InvalidInput)
    assert error.message == "tiny is under 'MIT', not 'Apache-2.0'"


def test_the_original_form_needs_the_base(folder: Path, tmp_path: Path) -> None:
    error = refused("convert", folder, tmp_path / "x", "--to", "original")
    assert isinstance(error, ModelMissing)
    assert "the base of tiny is not at hand: noted are '/nowhere/base' and hash" in error.message
    assert error.field == "--base"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("form", ["own", "original"])
def test_a_base_it_was_not_trained_on_is_refused(
    trained: Checkpoint, folder: Path, tmp_path: Path, form: str
) -> None:
    other = tiny_base(tmp_path / "other", seed=1)
    error = refused("convert", folder, tmp_path / "x", "--to", form, "--base", other)
    assert isinstance(error, CheckpointMismatch)
    wide = {"embed": torch.zeros(trained.config.added, 64)}
    unfit = save(replace(trained, base_hash=None, rows=wide), tmp_path / "unfit")
    error = refused("convert", unfit, tmp_path / "x", "--to", form, "--base", other)
    assert isinstance(error, InvalidCheckpoint)
    assert not (tmp_path / "x").exists()


def test_an_existing_folder_is_not_written_into(folder: Path, tmp_path: Path) -> None:
    assert "exists already" in refused("convert", folder, tmp_path, "--to", "own").message


# verify


def test_a_sound_checkpoint_is_verified_from_its_files_to_an_answer(
    folder: Path, base: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    clara("convert", folder, theirs, "--to", "original", "--base", base)
    for place, files in ((folder, "hashes as in manifest.json"), (theirs, "plain tensors")):
        done = clara("verify", place, "--base", base)
        lines = [line.split() for line in done.output.splitlines()]
        steps = ["files", "values", "base", "shapes", "loads", "compresses", "answers"]
        assert [line[:2] for line in lines] == [["ok", step] for step in steps]
        assert files in " ".join(lines[0])
        assert "8 x 32" in " ".join(lines[5])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rows.safetensors", b"", "rows.safetensors cannot be read"),
        ("manifest.json", b"{}", "has format None"),
    ],
)
def test_a_damaged_checkpoint_is_not_verified(
    folder: Path, base: Path, name: str, value: bytes, message: str
) -> None:
    (folder / name).write_bytes(value)
    error = refused("verify", folder, "--base", base)
    assert isinstance(error, InvalidCheckpoint)
    assert message in error.message


def test_latents_that_overflow_are_found(trained: Checkpoint, base: Path, tmp_path: Path) -> None:
    large = {key: tensor * 1e30 for key, tensor in trained.adapters["compressor"].items()}
    adapters = {**trained.adapters, "compressor": large}
    folder = save(replace(trained, adapters=adapters), tmp_path / "large")
    error = refused("verify", folder, "--base", base)
    assert error.field == "latent"
    assert "not numbers" in error.message


def test_without_its_base_nothing_is_verified(folder: Path) -> None:
    assert refused("verify", folder).field == "--base"


def test_an_error_is_a_line_and_exit_status_one(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "manifest.json").unlink()
    monkeypatch.setattr("sys.argv", ["clara", "checkpoints", "verify", str(folder)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "holds no checkpoint" in " ".join(capsys.readouterr().err.split())


# the pooled kind


@pytest.fixture
def pooled(trained: Checkpoint, tmp_path: Path) -> Path:
    config = replace(
        trained.config, kind="pooled", rates=(4, 8), different_mem_tokens=False, base="/nowhere"
    )
    pooling = {
        "weights": torch.zeros(400 + config.added),
        "gate": torch.zeros(HIDDEN),
        "order": torch.zeros(2, HIDDEN),
    }
    made = replace(trained, config=config, rows={}, pooling={"compressor": pooling}, name="pool")
    return save(made, tmp_path / "pooled")


def test_a_pooled_checkpoint_is_shown_and_verified(pooled: Path, base: Path) -> None:
    found = clara("show", pooled).output
    assert "4 (default), 8" in found
    assert "compressor: 500 parameters, 2.0 kB float32" in found
    assert "pooling.safetensors" in found
    assert "compresses" in clara("verify", pooled, "--base", base).output


def test_what_was_measured_of_a_checkpoint_is_shown(pooled: Path, base: Path) -> None:
    made = load(pooled, base=str(base))
    measured = {
        "reads_text": True,
        "prefers_text": True,
        "interaction": "late",
        "latent_weight": 0.25,
        "min_score": 0.3,
        "text_refusal_margin": 1.5,
        "refusal_margins": (2.0, 0.5),
    }
    save(replace(made, config=replace(made.config, **measured)), pooled.with_name("measured"))
    found = clara("show", pooled.with_name("measured")).output
    lines = {" ".join(line.split()) for line in found.splitlines()}
    assert {
        "reads latents and text; by default text",
        "ranking row by row, weight 0.25, read from 0.3 on",
        "refusals lead by 1.5 (text), 2 (rate 4), 0.5 (rate 8) nats",
    } <= lines
    told = shown(pooled.with_name("measured"))["serving"]
    assert told == measured | {"refusal_margins": [2.0, 0.5]}


def test_a_pooled_checkpoint_has_no_original_form(pooled: Path, base: Path, tmp_path: Path) -> None:
    error = refused("convert", pooled, tmp_path / "x", "--to", "original", "--base", base)
    assert "pool is of the pooled kind; the original form holds memory tokens only" in error.message
    copy = tmp_path / "copy"
    clara("convert", pooled, copy, "--to", "own", "--base", base)
    assert (copy / "pooling.safetensors").read_bytes() == (
        pooled / "pooling.safetensors"
    ).read_bytes()


# published checkpoints


def test_a_published_checkpoint_is_shown_and_verified_over_a_base_named_here() -> None:
    folder = GOLDEN / "checkpoints" / "mistral_64x4_stage2"
    found = shown(folder, "--base", GOLDEN / "bases" / "tiny-mistral")
    assert (found["form"], found["stage"], found["rate"]) == ("original", "stage2", 4)
    assert set(found["adapters"]) == {"compressor", "reasoner", "generator"}
    assert set(found["rows"]) == {"embed", "head"}
    assert found["base"] == "bases/tiny-mistral"
    assert original.CONFIG in found["files"]
    clara("verify", folder, "--base", GOLDEN / "bases" / "tiny-mistral")


def test_a_checkpoint_and_its_base_come_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, tiny = GOLDEN / "checkpoints" / "mistral_64x4_stage2", GOLDEN / "bases" / "tiny-mistral"
    files = {f"compression-4/{path.name}": path.read_bytes() for path in case.iterdir()}
    base = {path.name: path.read_bytes() for path in tiny.iterdir()}
    hub = Hub({"owner/model": {"main": {}, "v1": files}, "owner/base": {"main": base}})
    named = ("owner/model/compression-4", "--base", "owner/base", "--revision", "v1")
    with hub.serving() as address:
        use(monkeypatch, address, tmp_path / "hub")
        clara("convert", named[0], tmp_path / "ours", "--to", "own", *named[1:])
        assert shown(*named)["base_hash"] == base_hash(tiny)
        assert refused("show", *named[:3]).message.endswith("'compression-4'; nor any other")
    found, wanted = load(tmp_path / "ours"), load(case)
    assert (found.base_hash, found.config) == (base_hash(tiny), wanted.config)
    assert torch.equal(found.rows["head"], wanted.rows["head"])
