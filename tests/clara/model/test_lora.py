from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from clara.errors import InvalidCheckpoint
from clara.model.checkpoint import Checkpoint
from clara.model.lora import ALPHA_PER_RANK, block_linears, merged
from clara.model.models import Models

Opened = Callable[..., Models]


def run_unmerged(model: PreTrainedModel, adapter: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The second, slower way: the adapter beside every layer instead of inside its weight."""
    hooks = []
    for name, linear in block_linears(model).items():
        down, up = (adapter[f"{name}.lora_{side}.weight"] for side in "AB")

        def add(
            _m: nn.Module, args: tuple[Tensor], out: Tensor, a: Tensor = down, b: Tensor = up
        ) -> Tensor:
            return out + ALPHA_PER_RANK * (args[0] @ a.T) @ b.T

        hooks.append(linear.register_forward_hook(add))
    try:
        return model.base_model(input_ids=ids).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()


def test_a_merged_model_equals_the_base_with_its_adapter_beside_it(
    models: Models, adapters: dict[str, dict[str, Tensor]]
) -> None:
    base = models.generator.text_model
    ids = torch.tensor([[5, 9, 100, 7, 42]])
    twin = merged(base, adapters["generator"], role="generator")
    wanted = run_unmerged(base, adapters["generator"], ids)
    assert torch.allclose(twin.base_model(input_ids=ids).last_hidden_state, wanted, atol=1e-4)


def test_merging_leaves_the_base_alone_and_shares_what_no_adapter_touches(
    models: Models, adapters: dict[str, dict[str, Tensor]]
) -> None:
    base = models.generator.text_model
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    twin = merged(base, adapters["compressor"], role="compressor")
    assert all(torch.equal(before[name], weight) for name, weight in base.state_dict().items())
    linears = {f"{name}.weight" for name in block_linears(base)}
    for name, weight in base.named_parameters():
        shared = weight is dict(twin.named_parameters())[name]
        assert shared is (name not in linears)


def test_an_adapter_without_one_of_the_layers_is_refused(
    trained: Checkpoint, opened: Opened
) -> None:
    part = dict(trained.adapters["compressor"])
    part.pop("model.layers.1.mlp.down_proj.lora_B.weight")
    damaged = replace(trained, adapters={**trained.adapters, "compressor": part})
    with pytest.raises(InvalidCheckpoint, match=r"compressor adapter does not fit .*lacks 1") as e:
        opened(damaged)
    assert e.value.field == "compressor"
    assert "base this checkpoint was trained on" in str(e.value)


def test_an_adapter_for_more_layers_than_the_base_has_is_refused(
    trained: Checkpoint, opened: Opened
) -> None:
    more = {**trained.adapters["generator"], "model.layers.9.q.lora_A.weight": torch.zeros(4, 32)}
    damaged = replace(trained, adapters={**trained.adapters, "generator": more})
    with pytest.raises(InvalidCheckpoint, match="the base has no place for 1 tensors"):
        opened(damaged)


def test_an_adapter_of_another_width_is_refused(trained: Checkpoint, opened: Opened) -> None:
    key = "model.layers.0.self_attn.q_proj.lora_A.weight"
    wide = {**trained.adapters["reasoner"], key: torch.zeros(4, 64)}
    damaged = replace(trained, adapters={**trained.adapters, "reasoner": wide})
    with pytest.raises(InvalidCheckpoint, match=r"shape \(4, 64\); the base needs 32"):
        opened(damaged)


def test_two_ranks_in_one_layer_are_refused(trained: Checkpoint, opened: Opened) -> None:
    key = "model.layers.0.self_attn.q_proj.lora_A.weight"
    uneven = {**trained.adapters["reasoner"], key: torch.zeros(2, 32)}
    damaged = replace(trained, adapters={**trained.adapters, "reasoner": uneven})
    with pytest.raises(InvalidCheckpoint, match="rank 2 on one side and 4"):
        opened(damaged)
