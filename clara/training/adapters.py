"""Adapters beside the weights of a base, so that they can be trained: one set per role."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from transformers import PreTrainedModel

from clara.model.lora import ALPHA_PER_RANK, Adapter, block_linears, check


class Switch:
    """Says whose adapter every layer uses now; None is the base alone."""

    def __init__(self) -> None:
        self.role: str | None = None

    @contextmanager
    def on(self, role: str | None) -> Iterator[None]:
        """Use `role` inside."""
        before, self.role = self.role, role
        try:
            yield
        finally:
            self.role = before

    def recompute_contexts(
        self,
    ) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For gradient checkpointing: the second pass uses the role the first one had."""
        return self.on(self.role), self.on(self.role)


class AdaptedLinear(nn.Module):
    """A frozen linear layer with one low-rank change per role: y = x W + 2 (x A) B."""

    def __init__(self, base: nn.Linear, switch: Switch, dropout: float) -> None:
        super().__init__()
        self.base = base
        self.down = nn.ParameterDict()
        """By role: A (rank, in), float32."""
        self.up = nn.ParameterDict()
        """By role: B (out, rank), float32."""
        self._switch = switch
        self._dropout = dropout

    def forward(self, states: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the dtype of `states`."""
        found: Tensor = self.base(states)
        role = self._switch.role
        if role is None or role not in self.down:
            return found
        read = dropout(states, self._dropout, self.training) if self._dropout else states
        small = read.flatten(0, -2) @ self.down[role].to(states.dtype).T
        up = self.up[role].to(states.dtype).T
        # one kernel instead of a product, a scaling and a sum
        changed = torch.addmm(found.flatten(0, -2), small, up, alpha=ALPHA_PER_RANK)
        return changed.view_as(found)


class Adapters:
    """Every adapted layer of one model, by the path of the layer it took the place of."""

    def __init__(self, model: PreTrainedModel, switch: Switch, *, dropout: float) -> None:
        self._linears = block_linears(model)
        self.layers: dict[str, AdaptedLinear] = {}
        for path, linear in self._linears.items():
            parent, _, name = path.rpartition(".")
            self.layers[path] = AdaptedLinear(linear, switch, dropout)
            setattr(model.get_submodule(parent), name, self.layers[path])

    def make(self, role: str, *, rank: int, seed: int) -> None:
        """A new adapter that changes nothing yet: B is zero, A is random."""
        generator = torch.Generator().manual_seed(seed)
        for path, layer in self.layers.items():
            linear = self._linears[path]
            down = torch.empty(rank, linear.in_features)
            nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
            self._set(layer, role, down, torch.zeros(linear.out_features, rank))

    def load(self, role: str, adapter: Adapter) -> None:
        """Go on with an adapter. Raises InvalidCheckpoint where it does not fit the base."""
        check(self._linears, adapter, role)
        for path, layer in self.layers.items():
            sides = (adapter[f"{path}.lora_{side}.weight"].float() for side in "AB")
            self._set(layer, role, *sides)

    def has(self, role: str) -> bool:
        """Whether there is an adapter for `role`."""
        return any(role in layer.down for layer in self.layers.values())

    def export(self, role: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """The adapter of `role` as checkpoints keep it; empty where there is none."""
        return {
            f"{path}.lora_{side}.weight": sides[role].detach().to("cpu", dtype)
            for path, layer in self.layers.items()
            for side, sides in (("A", layer.down), ("B", layer.up))
            if role in sides
        }

    def parameters(self, role: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of one role."""
        for path, layer in self.layers.items():
            for side, sides in (("lora_A", layer.down), ("lora_B", layer.up)):
                if role in sides:
                    yield f"{path}.{side}.{role}", cast(nn.Parameter, sides[role])

    def _set(self, layer: AdaptedLinear, role: str, down: Tensor, up: Tensor) -> None:
        place = layer.base.weight.device
        # copies: two roles may begin with one adapter, and must not stay one
        layer.down[role] = nn.Parameter(down.to(place, copy=True), requires_grad=False)
        layer.up[role] = nn.Parameter(up.to(place, copy=True), requires_grad=False)


def checkpointing(model: PreTrainedModel, switch: Switch) -> None:
    """Recompute each block in the backward pass instead of keeping its states."""
    new = hasattr(model, "activation_checkpointing_enable")  # its name since transformers 5.23
    name = "activation" if new else "gradient"
    options = {"use_reentrant": False, "context_fn": switch.recompute_contexts}
    enable = getattr(model, f"{name}_checkpointing_enable")
    enable(**{f"{name}_checkpointing_kwargs": options})


def all_roles(adapters: Adapters, roles: Sequence[str]) -> dict[str, nn.Parameter]:
    """Parameters of several roles by name."""
    return {name: value for role in roles for name, value in adapters.parameters(role)}
