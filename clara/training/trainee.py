"""A checkpoint over its base while it learns: adapters, memory rows, pooling weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn

from clara.model.backbone import Backbone, embedding_of, filled, head_of
from clara.model.checkpoint import Checkpoint, CheckpointConfig
from clara.model.compressor import groups
from clara.model.generator import starts
from clara.model.kinds import LatentKind, MemoryKind
from clara.model.pooled import PooledKind, Pooling, middle_of
from clara.training.adapters import Adapters, Switch, all_roles, checkpointing
from clara.training.packing import Packed, pack, positions, visible
from clara.training.target import Target


class Trainee(nn.Module):
    """The three roles over one base, each with its own adapter, one used at a time.

    `forward` runs the stage's objective, so that accelerate can wrap the module for several
    processes.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: CheckpointConfig,
        *,
        objective: Callable[[Trainee, Any], Any],
        pooling: Mapping[str, Pooling],
        dropout: float = 0.0,
        recompute: bool = False,
        most_tokens: int = 16_384,
    ) -> None:
        super().__init__()
        self.model = backbone.model
        self.config = config
        self.tokens = backbone.tokens
        self.switch = Switch()
        self.adapters = Adapters(backbone.model, self.switch, dropout=dropout)
        self.memory_rows: nn.Parameter | None = None
        self.poolings = nn.ModuleDict(
            {role: _PoolingModule(found, self.device) for role, found in pooling.items()}
        )
        self._objective = objective
        self.most_tokens = most_tokens
        embedding = embedding_of(self.model).weight
        self._middle = middle_of(embedding, self.tokens.base_size)
        if recompute:
            checkpointing(self.model, self.switch)

    def forward(self, batch: Any) -> Any:
        """The stage's objective on one micro-batch."""
        return self._objective(self, batch)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return embedding_of(self.model).weight.device

    def kind(self, role: str, rate: int | None = None) -> LatentKind:
        """How `compressor` or `reasoner` makes latents, at one of the checkpoint's rates."""
        if self.config.kind == "memory":
            return MemoryKind(self.tokens)
        owner = role if role in self.poolings else "compressor"
        return PooledKind(
            tokens=self.tokens,
            rate=rate or self.config.compr_rate,
            pooling=cast(_PoolingModule, self.poolings[owner]).pooling(),
            embedding=embedding_of(self.model).weight,
            middle=self._middle,
            contextual=self.adapters.has(owner),
            late=self.config.interaction == "late",
            asks=self.config.interaction == "late" and role == "reasoner",
        )

    def train_memory_rows(self) -> None:
        """Let the memory tokens' rows learn, apart from the frozen embedding around them."""
        rows = embedding_of(self.model).weight[list(dict.fromkeys(self.tokens.memory))]
        self.memory_rows = nn.Parameter(rows.detach().float().clone())

    def learn(self, roles: Sequence[str]) -> dict[str, nn.Parameter]:
        """Freeze everything but `roles` and the memory rows; what is left, by name."""
        self.requires_grad_(False)
        found = all_roles(self.adapters, roles)
        for role, module in self.poolings.items():
            if role in roles:
                found |= {f"pooling.{role}.{k}": v for k, v in module.named_parameters()}
                if not self.adapters.has(role):
                    found.pop(f"pooling.{role}.gate")
        if self.memory_rows is not None:
            found["memory_rows"] = self.memory_rows
        for parameter in found.values():
            parameter.requires_grad_(True)
        return found

    def compress(
        self, role: str, sequences: Sequence[Sequence[int]], *, rate: int | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Blocks of sequences that the kind laid out, and the states they were made from.

        Sequences of similar length go through the model together.

        Returns:
            Blocks (rows, width) and states (ids, width); no states where no pass was needed.
        """
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        blocks: dict[int, Tensor] = {}
        seen: dict[int, Tensor] = {}
        kind = self.kind(role, rate)
        for group in groups(order, [len(row) for row in sequences], self.most_tokens):
            found = kind.blocks(self._states(role, group, seen), [sequences[i] for i in group])
            blocks.update(zip(group, found, strict=True))
        return [blocks[i] for i in range(len(sequences))], [seen[i] for i in sorted(seen)]

    def answers(self, targets: Sequence[Target], *, role: str | None = "generator") -> Tensor:
        """Logits (labels of all targets, vocabulary) in the targets' order.

        Only positions that carry loss go through the head; sequences are filled on the right,
        where a causal model cannot look.
        """
        sequences = pack(targets, self.tokens.memory)
        hidden = self._read(sequences, role)
        longest = hidden.shape[1]
        before = [
            i * longest + place
            for i, sequence in enumerate(sequences)
            for place in sequence.before_labels()
        ]
        rows = hidden.flatten(0, 1)[torch.tensor(before, device=hidden.device)]
        logits: Tensor = head_of(self.model)(rows)
        return logits

    def labels(self, targets: Sequence[Target]) -> Tensor:
        """(labels of all targets,)."""
        return torch.tensor(
            list(chain.from_iterable(t.labels for t in targets)), device=self.device
        )

    def checkpoint(self, *, stage: str, name: str, base_hash: str, rank: int) -> Checkpoint:
        """What was learned so far, detached, in the precision checkpoints are kept in."""
        adapters = {
            role: found
            for role in ("compressor", "reasoner", "generator")
            if (found := self.adapters.export(role, torch.bfloat16))
        }
        pooling = {
            role: {k: v.detach().cpu().clone() for k, v in module.named_parameters()}
            for role, module in self.poolings.items()
        }
        return Checkpoint(
            config=replace(self.config, training_stage=stage, lora_r=rank),
            adapters=adapters,
            rows={"embed": self._added_rows()},
            trained=True,
            name=name,
            base_hash=base_hash,
            pooling=pooling,
        )

    def _added_rows(self) -> Tensor:
        rows = embedding_of(self.model).weight[self.tokens.base_size :].detach().cpu().clone()
        if self.memory_rows is not None:
            rows[: len(self.memory_rows)] = self.memory_rows.detach().to(rows)
        return rows

    def _states(
        self, role: str, group: Sequence[int], seen: dict[int, Tensor]
    ) -> Callable[[Sequence[Sequence[int]]], list[Tensor]]:
        def run(sequences: Sequence[Sequence[int]]) -> list[Tensor]:
            ids = filled(sequences, self.tokens.pad).to(self.device)
            with self.switch.on(role):
                hidden = self._trunk(inputs_embeds=self._embed(ids)).last_hidden_state
            found = [hidden[i, : len(row)] for i, row in enumerate(sequences)]
            seen.update(zip(group, found, strict=True))
            return found

        return run

    def _read(self, sequences: Sequence[Packed], role: str | None) -> Tensor:
        """Last hidden states (sequences, longest, width) with the latents in their places."""
        ids = filled([one.ids for one in sequences], self.tokens.pad).to(self.device)
        embeds = self._embed(ids)
        places, latents = self._placed(sequences, embeds.shape[1])
        if latents:
            flat = embeds.flatten(0, 1)
            values = torch.cat(latents).float()
            if self.config.kind == "pooled":
                values = values + self._middle.mean
            at = torch.tensor(places, device=flat.device)
            embeds = flat.index_copy(0, at, values.to(flat.dtype)).view_as(embeds)
        inputs: dict[str, Tensor] = {"inputs_embeds": embeds}
        mask = visible(sequences, embeds.shape[1], self.device)
        if mask is not None:
            inputs |= {
                "attention_mask": mask,
                "position_ids": positions(sequences, embeds.shape[1], self.device),
            }
        with self.switch.on(role):
            hidden: Tensor = self._trunk(**inputs).last_hidden_state
        return hidden

    def _placed(self, sequences: Sequence[Packed], longest: int) -> tuple[list[int], list[Tensor]]:
        """Where every latent's row goes in the filled batch, counted through all of it."""
        places: list[int] = []
        blocks = [block for one in sequences for block in one.targets[0].latents]
        for i, one in enumerate(sequences):
            rows = [len(block) for block in one.targets[0].latents]
            firsts = starts(one.targets[0].ids, rows, self.tokens, self.config.sep)
            for first, count in zip(firsts, rows, strict=True):
                places += range(i * longest + first, i * longest + first + count)
        return places, blocks

    def _embed(self, ids: Tensor) -> Tensor:
        embeds: Tensor = embedding_of(self.model)(ids)
        if self.memory_rows is None:
            return embeds
        first = self.tokens.memory[0]
        slot = (ids - first).clamp(0, len(self.memory_rows) - 1)
        is_memory = (ids >= first) & (ids < first + len(self.memory_rows))
        return torch.where(is_memory.unsqueeze(-1), self.memory_rows[slot].to(embeds.dtype), embeds)

    @property
    def _trunk(self) -> Callable[..., Any]:
        trunk: nn.Module = self.model.base_model
        return lambda **inputs: trunk(**inputs, use_cache=False)


class _PoolingModule(nn.Module):
    def __init__(self, found: Pooling, device: torch.device) -> None:
        super().__init__()
        self.weights = nn.Parameter(found.weights.to(device, torch.float32).clone())
        self.gate = nn.Parameter(found.gate.to(device, torch.float32).clone())
        self.order = nn.Parameter(found.order.to(device, torch.float32).clone())

    def pooling(self) -> Pooling:
        return Pooling(weights=self.weights, gate=self.gate, order=self.order)
