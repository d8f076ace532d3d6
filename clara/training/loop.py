"""The optimiser loop all three stages share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from clara.errors import Cancelled, InvalidTraining, TrainingDiverged
from clara.model.compressor import groups
from clara.training import memory, state
from clara.training.config import StageConfig
from clara.training.optimiser import optimiser_of
from clara.training.order import Order
from clara.training.records import Record
from clara.training.schedule import rate_at
from clara.training.stages import Example, Objective
from clara.training.state import Progress
from clara.training.together import Together
from clara.training.trainee import Trainee

log = logging.getLogger(__name__)

NAMED = 20
"""Records that a diverged step names."""


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
        self._together = Together(accelerator)
        self._order = Order(len(records), config.optimiser.batch_size, config.seed)
        self._total = self._order.steps(config.length.epochs)
        if config.length.max_steps is not None:
            self._total = min(self._total, config.length.max_steps)
        self._optimiser = optimiser_of(self.learned, config.optimiser)
        self._spare = self._some_example()
        if self._together.main:
            state.recover(out)
        self._together.wait()
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
                if self._together.any(self._hooks.stopped()):
                    self.save()
                    raise Cancelled(
                        f"the training was cancelled after step {self.progress.step}",
                        remedy="Start it again as before, and it goes on from there",
                    )
                upcoming = self._advance(upcoming, ahead)
            upcoming.cancel()
        self._score_the_end()
        self.save()
        return self.progress

    def save(self) -> None:
        """Keep the state, so that another process can go on from here."""
        if self._together.main:
            state.write(self._out, self.learned, self._optimiser, self.progress)
        self._together.wait()

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
        step, skipped = self._agreed(self._step(examples, started), skipped)
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

    def _agreed(self, step: Step, skipped: int) -> tuple[Step, int]:
        """The same seconds in every process, since they decide rate and end; skipped records."""
        if self._together.count == 1:
            return step, skipped
        found = self._together.sums({"seconds": step.seconds, "skipped": skipped})
        seconds = found["seconds"] / self._together.count
        return replace(step, seconds=seconds), round(found["skipped"])

    def _step(self, examples: Sequence[Example], started: float) -> Step:
        drawn = hash((self._config.seed, self.progress.step)) + self._together.index
        torch.manual_seed(drawn & 0x7FFFFFFF)
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
            raise self._diverged(loss, float(gradient))
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
        places = self._together.mine(list(enumerate(self._order.step(number))))
        found = [
            self._objective.example(self._records[at], self._order.draw(number, place))
            for place, at in places
        ]
        kept = [example for example in found if example is not None]
        return kept, len(found) - len(kept)

    def _some_example(self) -> Example:
        """Any example: what a process whose records all left none takes part with."""
        for place, record in enumerate(self._records):
            example = self._objective.example(record, self._order.draw(0, place))
            if example is not None:
                return example
        raise InvalidTraining(
            f"none of the {len(self._records)} records leaves anything to learn from",
            field="data",
            remedy="See that answers fit behind their prompts in max_len tokens, and that qa_loss "
            "is on where all records are questions",
        )

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
        return {name: round(value) for name, value in self._together.sums(totals).items()}

    def _backward(
        self, micro: Sequence[list[Example]], totals: Mapping[str, int]
    ) -> dict[str, float]:
        """Gradients of the step's mean losses. Returns the sums, over all processes."""
        weights, world = self._objective.weights, self._together.count
        sums = {name: torch.zeros((), device=self._trainee.device) for name in weights}
        passes = round(self._together.most(len(micro)))
        for i in range(passes):
            # a process with fewer passes than another takes part without weight
            real = float(i < len(micro))
            batch = micro[i] if real else [self._spare]
            with self._synchronised(last=i == passes - 1), self._memory():
                found = self._wrapped(batch)
                # wrapped modules average gradients over processes; the sums are over all of them
                loss = torch.stack(
                    [
                        found[name] * (real * world * weights[name] / max(totals[name], 1))
                        for name in weights
                        if weights[name]
                    ]
                ).sum()
                if world > 1 and i == passes - 1:
                    loss = loss + self._nothing_of_all()
                self._accelerator.backward(loss)
            for name in weights:
                sums[name] += real * found[name].detach().float()
        return self._together.sums({name: float(value) for name, value in sums.items()})

    def _nothing_of_all(self) -> torch.Tensor:
        """0 that every parameter has a part in.

        Wrapped modules wait for the gradient of each before they average, and a micro-batch that
        is read as text alone has none for the compressor.
        """
        return 0 * torch.stack([parameter.sum() for parameter in self.learned.values()]).sum()

    def _synchronised(self, *, last: bool) -> AbstractContextManager[Any]:
        if last or self._together.count == 1:
            return nullcontext()
        found: AbstractContextManager[Any] = self._accelerator.no_sync(self._wrapped)
        return found

    def _memory(self) -> AbstractContextManager[None]:
        tokens = self._config.optimiser.micro_tokens
        what = f"a micro-batch of up to {tokens} token places"
        return memory.explained(what, micro_tokens=tokens)

    def _score(self) -> None:
        if self._hooks.score is None:
            return
        scores = self._hooks.score()
        value, progress = scores["score"], self.progress
        better = math.isfinite(value) and (progress.best is None or value < progress.best)
        progress.curve.append({"step": progress.step, "seconds": progress.seconds, **scores})
        progress.worse = 0 if better else progress.worse + 1
        if better:
            progress.best, progress.best_step = value, progress.step
        self._hooks.on_score(scores, better, progress)

    def _score_the_end(self) -> None:
        """The last state has a score too, wherever the training ended."""
        scored = self.progress.curve[-1]["step"] if self.progress.curve else 0
        if self._config.length.score_every and scored < self.progress.step:
            self._score()

    def _diverged(self, loss: float, gradient: float) -> TrainingDiverged:
        ids = [self._records[at].id for at in self._order.step(self.progress.step)]
        more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        return TrainingDiverged(
            f"step {self.progress.step + 1} has loss {loss} and a gradient of length {gradient} "
            f"on records {', '.join(ids[:NAMED])}{more}",
            field="optimiser.learning_rate",
            remedy="Look at these records, or train into another folder with a lower learning "
            "rate; what was learned before this step is kept",
        )
