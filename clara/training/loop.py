"""The optimiser loop all three stages share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from clara.errors import Cancelled, InvalidTraining, OutOfMemory, TrainingDiverged
from clara.model.compressor import groups
from clara.training import state
from clara.training.config import StageConfig
from clara.training.order import Order
from clara.training.records import Record
from clara.training.schedule import rate_at
from clara.training.stages import Example, Objective
from clara.training.state import Progress
from clara.training.trainee import Trainee

log = logging.getLogger(__name__)

FUSED = {"cuda", "cpu"}
"""Devices whose AdamW is one kernel."""


@dataclass(frozen=True)
class Step:
    """One optimiser step, as it is logged."""

    number: int
    loss: float
    parts: Mapping[str, float]
    """Means of the objective's losses, unweighted."""
    rate: float
    """Learning rate."""
    gradient: float
    """Length of the gradient before it is clipped."""
    places: int
    """Token places of this step, over all processes."""
    seconds: float


@dataclass(frozen=True)
class Hooks:
    """What happens around the steps."""

    on_step: Callable[[Step, Progress], None]
    score: Callable[[], Mapping[str, float]] | None
    """Dev scores; `score` among them decides, lower is better."""
    on_score: Callable[[Mapping[str, float], bool, Progress], None]
    """Told the scores, and whether they are the best so far."""
    stopped: Callable[[], bool]


class Loop:
    """One training from its state to its end."""

    def __init__(
        self,
        trainee: Trainee,
        objective: Objective,
        records: Sequence[Record],
        config: StageConfig,
        *,
        out: Path,
        accelerator: Accelerator,
        hooks: Hooks,
    ) -> None:
        self.learned = trainee.learn(objective.learning)
        self._objective, self._records, self._config = objective, records, config
        self._out, self._hooks, self._accelerator = out, hooks, accelerator
        self._order = Order(len(records), config.optimiser.batch_size, config.seed)
        self._total = self._order.steps(config.length.epochs)
        if config.length.max_steps is not None:
            self._total = min(self._total, config.length.max_steps)
        self._optimiser = _optimiser(self.learned, config)
        self.progress = state.read(out, self.learned, self._optimiser)
        self._trainee = trainee
        self._wrapped = accelerator.prepare(trainee) if accelerator.num_processes > 1 else trainee

    @property
    def steps(self) -> int:
        """Steps of the whole training, where time does not end it earlier."""
        return self._total

    @property
    def share(self) -> float:
        """How much of the training is done, 0 to 1."""
        minutes = self._config.length.minutes
        by_time = self.progress.seconds / (60 * minutes) if minutes else 0.0
        return min(max(self.progress.step / max(self._total, 1), by_time), 1.0)

    def run(self) -> Progress:
        """Train to the end of the budget, or until the dev score gets no better.

        Raises:
            TrainingDiverged: a loss is no number; the parameters are those before that step.
            Cancelled: `stopped` said so, between two steps; the state is kept.
            OutOfMemory: a micro-batch does not fit the device.
            DiskFull: a state could not be written; the one before is whole.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="examples") as ahead:
            upcoming = ahead.submit(self._examples, self.progress.step)
            while not self._over():
                if self._hooks.stopped():
                    self.save()
                    raise Cancelled("the training was cancelled")
                upcoming = self._advance(upcoming, ahead)
            upcoming.cancel()
        self.save()
        return self.progress

    def save(self) -> None:
        """Keep the state, so that another process can go on from here."""
        if self._accelerator.is_main_process:
            state.write(self._out, self.learned, self._optimiser, self.progress)
        self._accelerator.wait_for_everyone()

    def _over(self) -> bool:
        patience = self._config.length.patience
        tired = patience is not None and self.progress.worse >= patience
        return tired or self.share >= 1.0

    def _advance(
        self, upcoming: Future[tuple[list[Example], int]], ahead: ThreadPoolExecutor
    ) -> Future[tuple[list[Example], int]]:
        started = perf_counter()
        examples, skipped = upcoming.result()
        following = ahead.submit(self._examples, self.progress.step + 1)
        step = self._step(examples, started)
        self.progress.step += 1
        self.progress.seconds += step.seconds
        self.progress.tokens += step.places
        self.progress.skipped += skipped
        self._hooks.on_step(step, self.progress)
        length = self._config.length
        if length.score_every and self.progress.step % length.score_every == 0:
            self._score()
        if self.progress.step % length.save_every == 0:
            self.save()
        return following

    def _step(self, examples: Sequence[Example], started: float) -> Step:
        torch.manual_seed(hash((self._config.seed, self.progress.step)) & 0x7FFFFFFF)
        rate = rate_at(self.share, self._config.optimiser)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        totals = self._totals(examples)
        sums = self._backward(list(self._micro(examples)), totals)
        gradient = nn.utils.clip_grad_norm_(
            list(self.learned.values()), self._config.optimiser.clip
        )
        parts = {name: sums[name] / max(totals[name], 1) for name in sums}
        loss = sum(self._objective.weights[name] * value for name, value in parts.items())
        if not math.isfinite(loss) or not math.isfinite(float(gradient)):
            self._optimiser.zero_grad(set_to_none=True)
            raise self._diverged(loss, examples)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return Step(
            self.progress.step + 1,
            loss,
            parts,
            rate,
            float(gradient),
            totals["places"],
            perf_counter() - started,
        )

    def _examples(self, number: int) -> tuple[list[Example], int]:
        """This process's examples of one step, and how many records left none."""
        me, all_ = self._accelerator.process_index, self._accelerator.num_processes
        places = list(enumerate(self._order.step(number)))[me::all_]
        found = [
            self._objective.example(self._records[at], self._order.draw(number, place))
            for place, at in places
        ]
        kept = [example for example in found if example is not None]
        return kept, len(found) - len(kept)

    def _micro(self, examples: Sequence[Example]) -> Iterator[list[Example]]:
        """Micro-batches of examples of similar size under the budget."""
        order = sorted(range(len(examples)), key=lambda i: examples[i].places)
        places = [example.places for example in examples]
        for group in groups(order, places, self._config.optimiser.micro_tokens):
            yield [examples[i] for i in group]

    def _totals(self, examples: Sequence[Example]) -> dict[str, int]:
        """What a step's sums are divided by, over all processes."""
        totals = dict.fromkeys([*self._objective.weights, "places"], 0)
        for example in examples:
            totals["places"] += example.places
            for name, count in example.counts.items():
                totals[name] += count
        if self._accelerator.num_processes == 1:
            return totals
        counted = torch.tensor(list(totals.values()), device=self._accelerator.device)
        reduced: Tensor = self._accelerator.reduce(counted)
        return dict(zip(totals, reduced.tolist(), strict=True))

    def _backward(
        self, micro: Sequence[list[Example]], totals: Mapping[str, int]
    ) -> dict[str, float]:
        """Gradients of the step's mean losses. Returns the sums, over all processes."""
        weights, world = self._objective.weights, self._accelerator.num_processes
        sums = {name: torch.zeros((), device=self._trainee.device) for name in weights}
        passes = self._most_passes(len(micro))
        for i in range(passes):
            batch = micro[min(i, len(micro) - 1)]
            real = float(i < len(micro))  # a process with fewer passes repeats one without weight
            with self._synchronised(last=i == passes - 1), _memory_explained(self._config):
                found = self._wrapped(batch)
                # wrapped modules average gradients over processes; the sums are over all of them
                loss = torch.stack(
                    [
                        found[name] * (real * world * weights[name] / max(totals[name], 1))
                        for name in weights
                        if weights[name]
                    ]
                ).sum()
                self._accelerator.backward(loss)
            for name in weights:
                sums[name] += real * found[name].detach().float()
        return {name: float(self._accelerator.reduce(value)) for name, value in sums.items()}

    def _most_passes(self, mine: int) -> int:
        if self._accelerator.num_processes == 1:
            return mine
        counts = self._accelerator.gather(torch.tensor([mine], device=self._accelerator.device))
        return int(counts.max())

    def _synchronised(self, *, last: bool) -> Any:
        from contextlib import nullcontext

        if last or self._accelerator.num_processes == 1:
            return nullcontext()
        return self._accelerator.no_sync(self._wrapped)

    def _score(self) -> None:
        if self._hooks.score is None:
            return
        scores = self._hooks.score()
        value, progress = scores["score"], self.progress
        better = progress.best is None or value < progress.best
        progress.curve.append({"step": progress.step, "seconds": progress.seconds, **scores})
        progress.worse = 0 if better else progress.worse + 1
        if better:
            progress.best, progress.best_step = value, progress.step
        self._hooks.on_score(scores, better, progress)

    def _diverged(self, loss: float, examples: Sequence[Example]) -> TrainingDiverged:
        names = ", ".join(example.id for example in examples[:20])
        return TrainingDiverged(
            f"step {self.progress.step + 1} has loss {loss} on records {names}",
            field="optimiser.learning_rate",
            remedy="Look at these records, or go on from the last state with a lower learning rate",
        )


def _optimiser(learned: Mapping[str, nn.Parameter], config: StageConfig) -> torch.optim.Optimizer:
    """AdamW; what are no adapters learn at their own rate."""
    if not learned:
        raise InvalidTraining("nothing would be learned", field="learning")
    own = {name: p for name, p in learned.items() if ".lora_" not in name}
    rest = [p for name, p in learned.items() if name not in own]
    chosen = [
        {"params": rest, "scale": 1.0},
        {"params": list(own.values()), "scale": config.optimiser.weights_rate},
    ]
    return torch.optim.AdamW(
        [group for group in chosen if group["params"]],
        lr=config.optimiser.learning_rate,
        betas=config.optimiser.betas,
        weight_decay=config.optimiser.weight_decay,
        fused=next(iter(learned.values())).device.type in FUSED,
    )


class _memory_explained:  # noqa: N801 - a context manager reads as one
    """A device's own error becomes OutOfMemory."""

    def __init__(self, config: StageConfig) -> None:
        self._config = config

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        refused = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if refused:
            tokens = self._config.optimiser.micro_tokens
            raise OutOfMemory(
                f"a micro-batch of up to {tokens} token places does not fit the device",
                field="optimiser.micro_tokens",
                limit=tokens,
                remedy="Lower it, or set optimiser.recompute",
            ) from error
