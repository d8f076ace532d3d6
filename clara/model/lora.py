"""Low-rank adapters: checked against a base, and merged into a copy of its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from clara.errors import InvalidCheckpoint
from clara.model.backbone import head_of

ALPHA_PER_RANK = 2.0
"""The published adapters use alpha = 2 * rank, so the change of a weight is 2 * B @ A."""

Adapter = Mapping[str, Tensor]
"""`<module path>.lora_A.weight` (rank, in) and `<module path>.lora_B.weight` (out, rank)."""


def block_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Every linear layer of the blocks by module path: what an adapter covers; not the head."""
    head = head_of(model)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def merged(model: PreTrainedModel, adapter: Adapter, *, role: str) -> PreTrainedModel:
    """A copy of `model` with `adapter` added to its weights.

    Weights that an adapter cannot touch (embedding, head, norms) are shared with `model`.

    Raises:
        InvalidCheckpoint: the adapter does not cover exactly the base's layers, or a shape differs.
    """
    linears = block_linears(model)
    check(linears, adapter, role)
    own = {id(linear.weight) for linear in linears.values()}
    memo: dict[int, object] = {
        id(t): t for t in chain(model.parameters(), model.buffers()) if id(t) not in own
    }
    memo[id(model.config)] = model.config
    twin = copy.deepcopy(model, memo)
    with torch.no_grad():
        for name in linears:
            weight = cast(nn.Linear, twin.get_submodule(name)).weight
            down = adapter[f"{name}.lora_A.weight"].to(weight.device, torch.float32)
            up = adapter[f"{name}.lora_B.weight"].to(weight.device, torch.float32)
            weight.copy_(weight.float() + ALPHA_PER_RANK * (up @ down))
    return twin


def check(linears: Mapping[str, nn.Linear], adapter: Adapter, role: str) -> None:
    """Raises InvalidCheckpoint unless `adapter` covers exactly `linears`, shapes and all."""
    wanted = {
        f"{name}.lora_{side}.weight": linear for name, linear in linears.items() for side in "AB"
    }
    for what, keys in (
        ("lacks", wanted.keys() - adapter),
        ("has no place for", adapter - wanted.keys()),
    ):
        if keys:
            subject = "the adapter" if what == "lacks" else "the base"
            raise _mismatch(role, f"{subject} {what} {len(keys)} tensors, {min(keys)!r} first")
    for key, linear in wanted.items():
        shape = tuple(adapter[key].shape)
        side, fits = (1, linear.in_features) if ".lora_A." in key else (0, linear.out_features)
        if len(shape) != 2 or shape[side] != fits:
            raise _mismatch(role, f"{key!r} has shape {shape}; the base needs {fits} there")
    for name in linears:
        ranks = adapter[f"{name}.lora_A.weight"].shape[0], adapter[f"{name}.lora_B.weight"].shape[1]
        if ranks[0] != ranks[1]:
            raise _mismatch(role, f"{name!r} has rank {ranks[0]} on one side and {ranks[1]}")


def _mismatch(role: str, what: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(
        f"the {role} adapter does not fit its base: {what}",
        field=role,
        remedy="Use the base this checkpoint was trained on",
    )
