"""A training from its files to its last checkpoint: what `clara train` and train runs call."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from clara.errors import InvalidTraining
from clara.model import checkpoint as checkpoints
from clara.model.backbone import local_folder, pick_dtype
from clara.model.checkpoint import Checkpoint
from clara.model.fingerprints import base_hash
from clara.training.config import StageConfig
from clara.training.data import read
from clara.training.log import Log
from clara.training.loop import Hooks, Loop, Step
from clara.training.plan import Plan
from clara.training.probe import Probe
from clara.training.records import Record, Stage
from clara.training.setup import begin
from clara.training.state import Progress

log = logging.getLogger(__name__)

STAGE_NAMES = {
    Stage.COMPRESSION: "stage1",
    Stage.INSTRUCTION: "stage1_2",
    Stage.END_TO_END: "stage2",
}
"""As checkpoints call the stages; the published names count from another start."""


@dataclass(frozen=True)
class Trained:
    """What came out."""

    last: Path
    """Folder of the last checkpoint."""
    best: Path
    """Folder of the one with the best dev score; the last where none was scored."""
    progress: Progress


def train(
    plan: Plan,
    *,
    on_step: Callable[[Step, Progress, int], None] = lambda *_: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Trained:
    """Run a training to its end, or go on with one that was cut off.

    Args:
        plan: what to do; the same plan again goes on where its folder says.
        on_step: told every step, how far it is, and the steps there are.
        stopped: asked between steps.
    Raises:
        InvalidTraining: the plan cannot run, or its folder belongs to another plan.
        InvalidDataset: faults in the data.
        Whatever `Loop.run` raises.
    """
    _claim(plan)
    accelerator = Accelerator(cpu=plan.device == "cpu")
    records = _records(plan, plan.data, plan.limit)
    start, folder = _start(plan)
    dtype = _dtype(plan.config, accelerator.device)
    trainee, objective = begin(
        plan.config, start, folder, records, device=accelerator.device, dtype=dtype
    )
    book = Log(plan.out)
    hashed = base_hash(folder)

    def export(name: str) -> Path:
        made = trainee.checkpoint(
            stage=STAGE_NAMES[plan.config.stage],
            name=plan.name or plan.out.name,
            base_hash=hashed,
            rank=plan.config.lora_r,
        )
        return _replace(made, plan.out / "checkpoints" / name)

    def scored(scores: Mapping[str, float], best: bool, progress: Progress) -> None:
        book.score(scores, progress)
        if best and accelerator.is_main_process:
            export("best")

    def stepped(step: Step, progress: Progress) -> None:
        if accelerator.is_main_process:
            book.step(step, progress)
            on_step(step, progress, loop.steps)

    dev = _records(plan, plan.dev, plan.dev_limit) if plan.dev else []
    probe = Probe(trainee, objective, dev, seed=plan.config.seed) if dev else None
    loop = Loop(
        trainee,
        objective,
        records,
        plan.config,
        out=plan.out,
        accelerator=accelerator,
        hooks=Hooks(stepped, probe.scores if probe else None, scored, stopped),
    )
    progress = loop.run()
    last = export("last") if accelerator.is_main_process else plan.out / "checkpoints" / "last"
    accelerator.wait_for_everyone()
    best = plan.out / "checkpoints" / "best"
    return Trained(last, best if best.exists() else last, progress)


def _claim(plan: Plan) -> None:
    """Note the configuration in the folder, or see that it is the one noted."""
    path = plan.out / "config.json"
    wanted = _noted(plan)
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            changed = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            raise InvalidTraining(
                f"{plan.out} holds a training with other {', '.join(changed)}",
                field="out",
                remedy="Give another folder, or go on with the same configuration",
            )
        return
    plan.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def _noted(plan: Plan) -> dict[str, Any]:
    """What must be the same when a training goes on; its length may change."""
    config = json.loads(json.dumps(plan.config.as_dict()))
    del config["length"]
    return {
        "config": config,
        "data": [path.name for path in plan.data],
        "checkpoint": plan.checkpoint,
        "exclude_sources": list(plan.exclude_sources),
        "limit": plan.limit,
    }


def _records(plan: Plan, paths: Sequence[Path], limit: int | None) -> Sequence[Record]:
    stage = plan.config.stage
    k = getattr(plan.config, "generation_top_k", 1)
    return read(
        list(paths),
        stage,
        limit=limit,
        exclude_sources=plan.exclude_sources,
        generation_top_k=k,
    )


def _start(plan: Plan) -> tuple[Checkpoint, Path]:
    """The checkpoint to begin from and the base's folder."""
    config = plan.config
    if plan.checkpoint:
        found = checkpoints.load(plan.checkpoint, base=plan.base or None)
        return found, local_folder(plan.base or found.config.base)
    if config.stage is not Stage.COMPRESSION:
        raise InvalidTraining(
            f"{config.stage.title} goes on from a checkpoint, and none is given",
            field="checkpoint",
            remedy="Train stage 1 first and give its checkpoint",
        )
    if not plan.base:
        raise InvalidTraining("no base model is given", field="base")
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


def _replace(made: Checkpoint, path: Path) -> Path:
    """Save a checkpoint where an older one of the same training may be."""
    import shutil

    from clara.training.state import explained

    with explained(path.parent):
        fresh = path.with_name(f".{path.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        checkpoints.save(made, fresh)
        shutil.rmtree(path, ignore_errors=True)
        fresh.rename(path)
    return path
