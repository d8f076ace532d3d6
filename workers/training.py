"""The train queue: one stage of training, from its data to a registered checkpoint.

The work is a process of its own (`clara.training.launch`); this one keeps the lease, tells how far
it is, and stops it. A training whose worker was lost goes on from its last saved state, since its
folder is named by its run.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

from sqlalchemy.exc import SQLAlchemyError

from clara import registry
from clara.db.connect import OpenDb
from clara.errors import Cancelled, TrainingBusy
from clara.model.files import new_folder
from clara.registry import Inspected
from clara.settings import Settings
from clara.training.config import from_dict
from clara.training.disk import explained
from clara.training.events import Event
from clara.training.launch import launch
from clara.training.plan import Plan
from clara.training.progress import Trained
from workers import bootstrap, runs
from workers.runs import Held
from workers.stopping import stopping
from workers.training_files import checked, keep
from workers.training_progress import Pace
from workers.weights import inspect

log = logging.getLogger(__name__)

TELL_S = 1.0
"""Seconds between two writes of the progress."""

POLL_S = 0.5
"""Seconds between two looks at whether the training should stop."""

PREDECESSOR_S = 120.0
"""Seconds the training of a lost worker has to end: it notices at once, and saves its state."""

LOCK = ".lock"
"""In a training's folder; held by the process that trains in it (`clara.training.folder`)."""


def train(held: Held, open_db: OpenDb, config: Settings) -> bool:
    """Train one stage. Returns whether the run should be sent again, to go on in another worker.

    Raises:
        FaultyRecords: the data have faults.
        Cancelled: the run was cancelled, or is another worker's by now.
        ClaraError: whatever else ended the training.
    """
    plan = plan_of(held, config)
    try:
        runs.progress(open_db, held, held.run.done, held.run.total, phase="checking data")
        read = checked(plan.data, plan.config, stopped=_stopped(held))
        checked(plan.dev, plan.config, stopped=_stopped(held))
        trained = _launch(held, open_db, config, plan)
    except Cancelled:
        if held.stopped() or not stopping():
            raise
        runs.pause(open_db, held)
        return True
    steps = trained.progress.step
    runs.progress(open_db, held, steps, steps, phase="registering")
    _finish(held, open_db, config, plan, trained, read)
    return False


def plan_of(held: Held, config: Settings) -> Plan:
    """The plan of a run: the same one at every attempt, in a folder of the run's own.

    Raises:
        InvalidTraining: a file is gone, or the configuration cannot be.
        ModelMissing: no base is named, and the default one is not on this machine.
    """
    inputs = held.run.inputs
    out = folder_of(held.run.id, config)
    source, own = config.training_files, out / "data"
    base = inputs["base"]
    if not base and not inputs["checkpoint"]:
        base = str(bootstrap.base_model(config))
    return Plan(
        config=from_dict(inputs["config"]),
        data=keep(inputs["data"], source, own),
        dev=keep(inputs["dev"], source, own),
        out=out,
        base=base,
        checkpoint=inputs["checkpoint"],
        name=inputs["name"],
        device=config.device,
    )


def folder_of(run_id: object, config: Settings) -> Path:
    """Where a training keeps its log, its state and its checkpoints."""
    return config.trainings.resolve() / str(run_id)


def _stopped(held: Held) -> Callable[[], bool]:
    return lambda: held.stopped() or stopping()


def _launch(held: Held, open_db: OpenDb, config: Settings, plan: Plan) -> Trained:
    recorder = _Recorder(held, open_db, plan.config.length.save_every)
    recorder.write()
    _await_predecessor(plan.out, _stopped(held))
    return launch(
        plan,
        processes=config.training_processes or None,
        accelerate_config=config.training_accelerate_config,
        on_event=recorder,
        stopped=_stopped(held),
        poll_s=POLL_S,
        threads=config.training_threads or None,
    )


def _await_predecessor(out: Path, stopped: Callable[[], bool]) -> None:
    """Go on when nobody trains in a folder any more: a lost worker's training ends on its own.

    Raises:
        TrainingBusy: it does not.
        Cancelled: `stopped` said so.
    """
    out.mkdir(parents=True, exist_ok=True)
    ends = monotonic() + PREDECESSOR_S
    with (out / LOCK).open("a") as lock:
        while not _free(lock):
            if stopped():
                raise Cancelled("the training was cancelled before it went on")
            if monotonic() > ends:
                raise TrainingBusy(
                    f"another process still trains in {out}",
                    field=str(out),
                    remedy="It is tried again; end that process if it is stuck.",
                )
            sleep(POLL_S)


def _free(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


class _Recorder:
    """Writes how far a training is, now and then."""

    def __init__(self, held: Held, open_db: OpenDb, save_every: int) -> None:
        self._held, self._open_db, self._save_every = held, open_db, save_every
        self._pace = Pace(held.run.details, done=held.run.done, steps=held.run.total)
        self._saved = self._pace.done // save_every
        self._due = 0.0

    def __call__(self, event: Event) -> None:
        self._pace.note(event)
        if "number" not in event or monotonic() >= self._due:
            self.write()
            self._due = monotonic() + TELL_S

    def write(self) -> None:
        """One look at the record; a database that is away costs no training."""
        more: dict[str, Any] = {"phase": "training", "details": self._pace.details()}
        if self._pace.done // self._save_every > self._saved:
            more["attempts"] = 1  # a state was saved since: a loss of the worker now is a new one
        try:
            runs.progress(self._open_db, self._held, self._pace.done, self._pace.steps, **more)
        except Cancelled:
            self._held.lost.set()
        except SQLAlchemyError:
            log.warning("could not write how far run %s is", self._held.run.id, exc_info=True)


def _finish(
    held: Held,
    open_db: OpenDb,
    config: Settings,
    plan: Plan,
    trained: Trained,
    read: list[dict[str, Any]],
) -> None:
    """Keep the best checkpoint apart, and register it in the transaction that ends the run."""
    bases = [plan.base] if plan.base else ["", str(bootstrap.base_model(config))]
    found = _kept(inspect(str(trained.best), bases, config), config)
    progress = trained.progress
    result = {
        "name": found.name,
        "path": found.path,
        "fingerprint": found.fingerprint,
        "data": read,
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "tokens": progress.tokens,
        "skipped": progress.skipped,
        "best_step": progress.best_step,
    }
    scores = dev_scores(plan, trained)
    with open_db.begin() as db:
        checkpoint_id = registry.register(db, found, run_id=held.run.id, scores=scores)
        result["checkpoint_id"] = str(checkpoint_id)
        runs.succeed(db, held, result, runs.timings(held.run), done=progress.step)


def _kept(found: Inspected, config: Settings) -> Inspected:
    """The checkpoint in a folder that no later training of the run touches."""
    name = f"{found.name}-{found.weights_hash[:12]}"
    target = config.checkpoints.resolve() / name
    if not target.exists():
        with explained(target.parent), new_folder(target) as part:
            shutil.copytree(str(found.path), part, dirs_exist_ok=True)
    return replace(found, path=str(target))


def dev_scores(plan: Plan, trained: Trained) -> dict[str, dict[str, Any]]:
    """Scores on the dev records of the step that was kept, as the registry keeps them."""
    best = trained.progress.best_step
    found = [entry for entry in trained.progress.curve if entry["step"] == best]
    if not found:
        return {}
    stems = "+".join(path.name.split(".")[0] for path in plan.dev)
    numbers = {key: value for key, value in found[-1].items() if key not in ("step", "seconds")}
    return {f"dev {stems} (stage {plan.config.stage.value})": numbers}
