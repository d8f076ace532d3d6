"""Several answers about the same latents in one sequence: what their prompts share is read once.

The questions of a passage differ only behind its latents. Written one behind the other after the
part they share, each sees that part and itself and takes the positions it would have alone, so
losses and gradients are those of separate sequences. On the stage 1 data of the default checkpoint
that leaves 0.55 to 0.66 of the token places, by rate (BENCHMARKS.md, training steps).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, takewhile

import torch
from torch import Tensor

from clara.training.target import Target


@dataclass(frozen=True)
class Packed:
    """One sequence, and where the targets' own parts are in it."""

    shared: Sequence[int]
    """Ids that all targets begin with, their latents' places among them; of one target, all."""
    parts: tuple[Sequence[int], ...]
    """Ids behind the shared ones, by target; empty where there is one target."""
    targets: tuple[Target, ...]

    @property
    def ids(self) -> list[int]:
        """Of the whole sequence."""
        return [*self.shared, *chain.from_iterable(self.parts)]

    @property
    def positions(self) -> list[int]:
        """Where every id would stand if its target were alone."""
        first = len(self.shared)
        return [*range(first), *(first + i for part in self.parts for i in range(len(part)))]

    @property
    def owners(self) -> list[int]:
        """0 for what is shared, else the number of the target from 1."""
        return [0] * len(self.shared) + [
            number for number, part in enumerate(self.parts, start=1) for _ in part
        ]

    def before_labels(self) -> Iterator[int]:
        """Places whose next id carries loss, target by target."""
        start = 0
        for part, target in zip(self.parts or ((),), self.targets, strict=True):
            yield from range(start + target.prompt - 1, start + len(target.ids) - 1)
            start += len(part)


def pack(targets: Sequence[Target], memory: Sequence[int]) -> list[Packed]:
    """Targets in their order, neighbours with the same latents together where they can be.

    Args:
        targets: those of one record stand together and name the same list of latents.
        memory: ids whose places latents take.
    """
    found: list[Packed] = []
    for _, same in groupby(targets, key=lambda target: id(target.latents)):
        group: list[Target] = []
        for target in same:
            if group and not _shares(group, target, memory):
                found.append(_packed(group))
                group = []
            group.append(target)
        found.append(_packed(group))
    return found


def visible(sequences: Sequence[Packed], longest: int, device: torch.device) -> Tensor | None:
    """What may look at what: (sequences, 1, longest, longest), True where it may.

    None where no sequence holds several targets, so that a plain causal pass does.
    """
    if not any(one.parts for one in sequences):
        return None
    owners = torch.tensor([_filled(one.owners, longest) for one in sequences], device=device)
    rows, columns = owners.unsqueeze(2), owners.unsqueeze(1)
    causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    return (causal & ((columns == 0) | (columns == rows))).unsqueeze(1)


def positions(sequences: Sequence[Packed], longest: int, device: torch.device) -> Tensor:
    """(sequences, longest)."""
    return torch.tensor([_filled(one.positions, longest) for one in sequences], device=device)


def _filled(row: Sequence[int], longest: int) -> list[int]:
    return [*row, *[0] * (longest - len(row))]


def _shares(group: Sequence[Target], target: Target, memory: Sequence[int]) -> bool:
    """Whether what `target` has in common with all of the group reaches past any latents."""
    common = _common([*group, target])
    places = [at for at, token in enumerate(target.ids[: target.prompt]) if token in memory]
    return common > max(places, default=0)


def _common(targets: Sequence[Target]) -> int:
    """Ids that the prompts begin with alike, less one: the last is read for the first label."""
    prompts = [target.ids[: target.prompt - 1] for target in targets]
    columns = zip(*prompts, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _packed(group: Sequence[Target]) -> Packed:
    if len(group) == 1:
        return Packed(group[0].ids, (), tuple(group))
    shared = _common(group)
    parts = tuple(target.ids[shared:] for target in group)
    return Packed(group[0].ids[:shared], parts, tuple(group))
