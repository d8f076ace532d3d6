from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clara.model.checkpoint import Checkpoint, load, save, untrained
from clara.model.fingerprints import base_hash, fingerprint, weights_hash
from tests.tiny import tiny_base

Change = Callable[[Checkpoint], Checkpoint]


def scaled(role: str) -> Change:
    def change(checkpoint: Checkpoint) -> Checkpoint:
        adapter = {key: 2 * tensor for key, tensor in checkpoint.adapters[role].items()}
        return replace(checkpoint, adapters={**checkpoint.adapters, role: adapter})

    return change


def row(at: int) -> Change:
    def change(checkpoint: Checkpoint) -> Checkpoint:
        rows = checkpoint.rows["embed"].clone()
        rows[at] += 1
        return replace(checkpoint, rows={"embed": rows})

    return change


def configured(**values: object) -> Change:
    return lambda checkpoint: replace(
        checkpoint,
        config=replace(checkpoint.config, **values),  # type: ignore[arg-type]
    )


def marks(checkpoint: Checkpoint) -> tuple[str, str]:
    mark = fingerprint(checkpoint, "base", dtype=torch.float32)
    return mark, weights_hash(checkpoint, "base")


@pytest.mark.parametrize(
    "change",
    [scaled("generator"), scaled("reasoner"), row(8), row(10), configured(sep=False)],
    ids=["generator", "reasoner", "AE row", "SEP row", "sep"],
)
def test_what_no_latent_depends_on_keeps_the_fingerprint(
    trained: Checkpoint, change: Change
) -> None:
    before, after = marks(trained), marks(change(trained))
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize(
    "change",
    [
        scaled("compressor"),
        row(0),
        row(7),
        row(9),
        configured(compr_rate=8, rates=(8,)),
        configured(doc_max_length=64),
    ],
    ids=["compressor", "first memory row", "last memory row", "ENC row", "rate", "length"],
)
def test_what_a_latent_depends_on_alters_the_fingerprint(
    trained: Checkpoint, change: Change
) -> None:
    before, after = marks(trained), marks(change(trained))
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_dtype_and_base_alter_the_fingerprint(trained: Checkpoint) -> None:
    wanted = fingerprint(trained, "base", dtype=torch.float32)
    assert fingerprint(trained, "base", dtype=torch.bfloat16) != wanted
    assert fingerprint(trained, "other", dtype=torch.float32) != wanted


def test_name_place_and_form_of_a_checkpoint_keep_the_fingerprint(
    trained: Checkpoint, tmp_path: Path
) -> None:
    again = load(save(replace(trained, name="other"), tmp_path / "other"), base="elsewhere")
    assert marks(again) == marks(trained)


def test_stored_precision_keeps_the_fingerprint(trained: Checkpoint) -> None:
    exact = replace(trained, rows={"embed": trained.rows["embed"].bfloat16()})
    wide = replace(trained, rows={"embed": exact.rows["embed"].float()})
    assert marks(exact) == marks(wide)


def test_an_untrained_checkpoint_has_a_fingerprint_of_its_own(trained: Checkpoint) -> None:
    fresh = untrained(trained.config.base, compr_rate=4, doc_max_length=32)
    assert marks(fresh)[0] != marks(trained)[0]
    assert marks(fresh) == marks(untrained("elsewhere", compr_rate=4, doc_max_length=32))


def test_a_base_is_known_by_its_weights_not_by_its_place(tmp_path: Path) -> None:
    one, same = tiny_base(tmp_path / "one"), tiny_base(tmp_path / "same")
    other = tiny_base(tmp_path / "other", seed=1)
    assert base_hash(one) == base_hash(same)
    assert base_hash(one) != base_hash(other)


def test_a_remembered_hash_is_used_until_the_file_changes(tmp_path: Path) -> None:
    base, cache = tiny_base(tmp_path / "base"), tmp_path / "cache"
    wanted = base_hash(base, cache=cache)
    assert wanted == base_hash(base)
    weights = base / "model.safetensors"
    state = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))  # as if nothing had changed
    assert base_hash(base, cache=cache) == wanted
    os.utime(weights, ns=(0, 0))
    assert base_hash(base, cache=cache) != wanted


def test_a_damaged_memory_of_hashes_is_only_slower(tmp_path: Path) -> None:
    base, cache = tiny_base(tmp_path / "base"), tmp_path / "cache"
    wanted = base_hash(base, cache=cache)
    (cache / "base-hashes.json").write_text("{")
    assert base_hash(base, cache=cache) == wanted
