"""A training from its files to its last checkpoint: what `clara train` and train runs call."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, GradientAccumulationPlugin

from clara.errors import Cancelled, DiskFull, InvalidTraining, TrainingDiverged
from clara.model import checkpoint as checkpoints
from clara.model.backbone import local_folder, pick_dtype
from clara.model.checkpoint import Checkpoint
from clara.model.fingerprints import base_hash
from clara.training import memory
from clara.training.answers import Answers
from clara.training.config import StageConfig
from clara.training.data import read
from clara.training.events import Event
from clara.training.folder import claimed, put
from clara.training.log import Log
from clara.training.loop import Hooks, Loop, Step
from clara.training.plan import Plan, check, check_latents, chosen_latents
from clara.training.probe import Probe
from clara.training.progress import Progress, checkpoints_in, trained_in
from clara.training.progress import Trained as Trained
from clara.training.records import Record, Stage
from clara.training.setup import begin
from clara.training.stages import Objective
from clara.training.together import Together
from clara.training.trainee import Trainee

log = logging.getLogger(__name__)

STAGE_NAMES = {
    Stage.COMPRESSION: "stage1",
    Stage.INSTRUCTION: "stage1_2",
    Stage.END_TO_END: "stage2",
}
"""As checkpoints call the stages; the published names count from another start."""

SHARDED = (
    DistributedType.DEEPSPEED,
    DistributedType.FSDP,
    DistributedType.MEGATRON_LM,
    DistributedType.XLA,
)
"""Ways to run that take parameters apart; only adapters learn here, so every process has all."""


def train(
    plan: Plan,
    *,
    on_step: Callable[[Step, Progress, int], None] = lambda *_: None,
    on_event: Callable[[Event], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Trained:
    """Run a training to its end, or go on with one that was cut off.

    Args:
        plan: what to do; the same plan again goes on where its folder says.
        on_step: told every step, how far it is, and the steps there are.
        on_event: told everything that is written to the log.
        stopped: asked between steps; in several processes, one of them is enough.
    Raises:
        InvalidTraining: the plan cannot run, or its folder belongs to another plan.
        InvalidDataset: faults in the data.
        OutOfMemory: the model does not fit the device.
        Whatever `Loop.run` raises.
    """
    check(plan)
    records = _records(plan, plan.data, plan.limit)
    dev = _records(plan, plan.dev, plan.dev_limit) if plan.dev else []
    accelerator = _accelerator(plan)
    together = Together(accelerator)
    tokens = plan.config.optimiser.micro_tokens
    with claimed(plan, main=together.main):
        book = Log(plan.out, on_event)
        with memory.explained("the model", micro_tokens=tokens):
            run = _Run(plan, records, dev, accelerator, book, on_step, stopped)
            return run.to_the_end(book)


class _Run:
    """One training in this process: the model, the loop over it, and what is kept."""

    def __init__(
        self,
        plan: Plan,
        records: Sequence[Record],
        dev: Sequence[Record],
        accelerator: Accelerator,
        book: Log,
        on_step: Callable[[Step, Progress, int], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._plan, self._book, self._on_step = plan, book, on_step
        self._together = Together(accelerator)
        start, folder = _start(plan)
        dtype = _dtype(plan.config, accelerator.device)
        self._trainee, objective = begin(
            plan.config, start, folder, records, device=accelerator.device, dtype=dtype
        )
        self._base_hash = base_hash(folder)
        score = _scores(self._trainee, objective, plan.config, dev, self._together)
        self._loop = Loop(
            self._trainee,
            objective,
            records,
            plan.config,
            out=plan.out,
            accelerator=accelerator,
            hooks=Hooks(self._stepped, score, self._scored, stopped),
        )
        self._about = {
            "of": self._loop.steps,
            "pid": os.getpid(),
            "processes": self._together.count,
            "device": str(accelerator.device),
            "dtype": str(dtype).removeprefix("torch."),
            "records": len(records),
            "dev": len(dev),
        }

    def to_the_end(self, book: Log) -> Trained:
        """Train; what was learned is a checkpoint also where the end comes early."""
        if self._together.main:
            log.info("at step %d of %d", self._loop.progress.step, self._loop.steps)
            book.begin(self._loop.progress, **self._about)
        try:
            progress = self._loop.run()
        except (Cancelled, TrainingDiverged):
            with suppress(DiskFull):  # the state is whole, and why it ended is what counts
                self._keep("last")
            raise
        self._keep("last")
        return trained_in(self._plan.out, progress)

    def _keep(self, name: str) -> None:
        """Write what was learned as a checkpoint; every process waits for it."""
        if self._together.main and self._loop.progress.step:
            made = self._trainee.checkpoint(
                stage=STAGE_NAMES[self._plan.config.stage],
                name=self._plan.name or self._plan.out.resolve().name,
                base_hash=self._base_hash,
                rank=self._plan.config.lora_r,
            )
            read = getattr(self._plan.config, "generation_top_k", made.config.generation_top_k)
            config = replace(made.config, generation_top_k=read)
            put(replace(made, config=config), checkpoints_in(self._plan.out) / name)
        self._together.wait()

    def _stepped(self, step: Step, progress: Progress) -> None:
        if self._together.main:
            self._book.step(step, progress, self._loop.share)
            self._on_step(step, progress, self._loop.steps)

    def _scored(self, scores: Mapping[str, float], best: bool, progress: Progress) -> None:
        if self._together.main:
            self._book.score(scores, progress, best)
        if best:
            self._keep("best")


def _scores(
    trainee: Trainee,
    objective: Objective,
    config: StageConfig,
    dev: Sequence[Record],
    together: Together,
) -> Callable[[], Mapping[str, float]] | None:
    """Dev scores: losses and, where asked for, those of generated answers."""
    if not dev:
        return None
    probe = Probe(trainee, objective, dev, seed=config.seed, together=together)
    if not config.length.do_eval_gen:
        return probe.scores
    answers = Answers(trainee, config, dev, together=together)
    return lambda: {**probe.scores(), **answers.scores()}


def _accelerator(plan: Plan) -> Accelerator:
    """The device and the other processes, whatever the surroundings say of anything else."""
    kind, _, number = plan.device.partition(":")
    if number:
        raise InvalidTraining(
            f"a training in this process takes the first GPU it sees, not {plan.device}",
            field="device",
            remedy="Set CUDA_VISIBLE_DEVICES to it, or train in a process of its own",
        )
    made = Accelerator(
        cpu=kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()),
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
    if made.distributed_type in SHARDED:
        raise InvalidTraining(
            f"{made.distributed_type.value} takes parameters apart; only adapters learn here",
            field="accelerate_config",
            remedy="Set distributed_type to MULTI_GPU (DDP), and recompute for memory",
        )
    if kind == "cuda" and made.device.type != "cuda":
        raise InvalidTraining(
            f"device {plan.device} is asked for; torch finds no GPU here",
            field="device",
            remedy="Leave it at auto, or install the torch that fits the GPU's driver",
        )
    return made


def _records(plan: Plan, paths: Sequence[Path], limit: int | None) -> Sequence[Record]:
    stage = plan.config.stage
    k = getattr(plan.config, "generation_top_k", 1)
    files = [list(paths)] if limit is None else [[path] for path in paths]
    return [
        record
        for some in files
        for record in read(
            some, stage, limit=limit, exclude_sources=plan.exclude_sources, generation_top_k=k
        )
    ]


def _start(plan: Plan) -> tuple[Checkpoint, Path]:
    """The checkpoint to begin from and the base's folder."""
    config = plan.config
    if plan.checkpoint:
        found = checkpoints.load(plan.checkpoint, base=plan.base or None)
        check_latents(chosen_latents(config), asdict(found.config), found.name)
        return found, local_folder(plan.base or found.config.base)
    latents = config.latents
    fresh = checkpoints.CheckpointConfig(
        base=plan.base,
        compr_rate=latents.compr_rate,
        doc_max_length=latents.doc_max_length,
        different_mem_tokens=latents.kind == "memory",
        lora_r=config.lora_r,
        kind=latents.kind,
        rates=latents.rates,
    )
    return Checkpoint(fresh), local_folder(plan.base)


def _dtype(config: StageConfig, device: torch.device) -> torch.dtype:
    if config.dtype == "auto":
        return pick_dtype(device)
    return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
