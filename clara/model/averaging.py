"""Two checkpoints of one training, averaged: arXiv:2203.05482.

The mean of weights that one training passed through is often better than the last of them, above
all after few records at a high learning rate. It costs nothing when serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from clara.errors import InvalidCheckpoint
from clara.model.checkpoint import Checkpoint
from clara.model.lora import Adapter


def averaged(
    one: Checkpoint, other: Checkpoint, *, share: float = 0.5, roles: Sequence[str] = ("generator",)
) -> Checkpoint:
    """`one` with the adapters of some roles on the way to those of `other`.

    The mean of an adapter's two factors is not the mean of their product, but near to it where one
    adapter went on from the other. Margins that were measured of `one` are dropped.

    Args:
        one: what everything else is taken from.
        other: of the same base, with adapters of the same shapes.
        share: of `one` in the mean, 0 to 1.
        roles: whose adapters are averaged.
    Raises:
        InvalidCheckpoint: a role that one of them lacks, or adapters of different shapes.
        ValueError: a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it lies between 0 and 1")
    mixed = {role: _mixed(role, one, other, share) for role in roles}
    config = replace(one.config, text_refusal_margin=None, refusal_margins=())
    return replace(one, config=config, adapters={**one.adapters, **mixed})


def _mixed(role: str, one: Checkpoint, other: Checkpoint, share: float) -> Adapter:
    mine, theirs = one.adapters.get(role, {}), other.adapters.get(role, {})
    shapes = [{name: tuple(tensor.shape) for name, tensor in x.items()} for x in (mine, theirs)]
    if not mine or shapes[0] != shapes[1]:
        raise InvalidCheckpoint(
            f"{one.name} and {other.name} have no {role} adapters of the same shapes",
            field=role,
            remedy="Average checkpoints of which one went on from the other",
        )
    return mean(mine, theirs, share)


def mean(
    mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """`share` of some tensors and the rest of others of the same names, in the former's dtype."""
    return {
        name: (share * tensor.float() + (1 - share) * theirs[name].float()).to(tensor.dtype)
        for name, tensor in mine.items()
    }
