from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clara.errors import InvalidCheckpoint
from clara.model.backbone import (
    embedding_of,
    head_of,
    initial_rows,
    keeping,
    load_backbone,
    pick_device,
    pick_dtype,
    write_rows,
)
from tests.tiny import HIDDEN, tiny_base


def test_the_embedding_grows_by_exactly_the_added_tokens(base: Path) -> None:
    backbone = load_backbone(base, n_mem=8, doc_max_length=32)
    tokens = backbone.tokens
    assert tokens.size == tokens.base_size + 11
    assert embedding_of(backbone.model).weight.shape == (tokens.size, HIDDEN)
    assert head_of(backbone.model).weight.shape == (tokens.size, HIDDEN)
    assert tokens.memory == tuple(range(tokens.base_size, tokens.base_size + 8))
    assert (tokens.enc, tokens.sep) == (tokens.base_size + 9, tokens.base_size + 10)


def test_one_memory_token_can_stand_in_every_place(base: Path) -> None:
    tokens = load_backbone(base, n_mem=8, doc_max_length=32, different=False).tokens
    assert tokens.memory == (tokens.base_size,) * 8
    assert tokens.size == tokens.base_size + 4
    assert tokens.prompts.from_latents("Who?", 1).count("<MEM>") == 8


def test_made_rows_are_distinct_near_the_mean_and_the_same_each_time(base: Path) -> None:
    first = load_backbone(base, n_mem=8, doc_max_length=32)
    again = load_backbone(base, n_mem=8, doc_max_length=32)
    rows = embedding_of(first.model).weight[first.tokens.base_size :]
    assert torch.equal(rows, embedding_of(again.model).weight[first.tokens.base_size :])
    assert len({tuple(row) for row in rows.tolist()}) == len(rows)
    old = embedding_of(first.model).weight[: first.tokens.base_size]
    assert (rows - old.mean(0)).norm(dim=1).max() < old.norm(dim=1).mean()
    assert torch.equal(rows, initial_rows(old, len(rows)))


def test_a_tied_base_stays_tied_after_growing(tmp_path: Path) -> None:
    backbone = load_backbone(tiny_base(tmp_path, tied=True), n_mem=4, doc_max_length=16)
    assert head_of(backbone.model).weight is embedding_of(backbone.model).weight


def test_rows_can_be_written_whole_or_for_the_added_tokens_alone(base: Path) -> None:
    backbone = load_backbone(base, n_mem=4, doc_max_length=16)
    old, size = backbone.tokens.base_size, backbone.tokens.size
    write_rows(backbone, "embed", torch.ones(size - old, HIDDEN))
    weight = embedding_of(backbone.model).weight
    assert (weight[old:] == 1).all()
    assert not (weight[:old] == 1).all()
    write_rows(backbone, "head", torch.full((size, HIDDEN), 2.0))
    assert (head_of(backbone.model).weight == 2).all()


def test_rows_of_another_width_are_refused(base: Path) -> None:
    backbone = load_backbone(base, n_mem=4, doc_max_length=16)
    with pytest.raises(InvalidCheckpoint, match=r"head rows have shape \(7, 64\)"):
        write_rows(backbone, "head", torch.ones(7, 64))


def test_a_named_device_is_taken_as_it_is() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in {"cpu", "cuda"}


def test_gpus_compute_in_bfloat16_and_processors_only_where_they_can() -> None:
    assert pick_dtype(torch.device("cuda")) == torch.bfloat16
    assert pick_dtype(torch.device("cpu")) in {torch.bfloat16, torch.float32}


def test_roles_work_in_bfloat16_too(base: Path) -> None:
    backbone = load_backbone(base, n_mem=4, doc_max_length=16, dtype=torch.bfloat16)
    assert embedding_of(backbone.model).weight.dtype == torch.bfloat16


def test_a_cache_is_given_by_the_name_that_the_model_knows() -> None:
    class Now(torch.nn.Module):
        def forward(self, cache: object = None) -> None: ...

    class Before(torch.nn.Module):
        def forward(self, past_key_values: object = None) -> None: ...

    assert keeping(Now(), 7) == {"cache": 7, "use_cache": True}
    assert keeping(Before(), 7) == {"past_key_values": 7, "use_cache": True}
