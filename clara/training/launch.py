"""Starts a training in processes of its own through `accelerate launch`, and minds them.

One process on a CPU or GPU, one per GPU of this machine, or whatever an accelerate configuration
of the user's own says, several hosts included. Nothing here loads torch.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from clara.errors import Cancelled, ClaraError, DiskFull, TrainingFailed, TrainingKilled
from clara.training import outcome
from clara.training.disk import explained, write_whole
from clara.training.ended import last_words, signal_in
from clara.training.events import Event, Tail
from clara.training.plan import Plan, check
from clara.training.progress import Progress, Trained, trained_in

MAIN = "clara.training.main"
CONFIGURATION = "accelerate.json"

GRACE_S = 60.0
"""Seconds a stopped training has to keep its state; a step of a large model takes some of them."""

LEAST_ROOM = 2**20
"""Bytes of disk under which not even an error can be written."""


def launch(
    plan: Plan,
    *,
    processes: int | None = None,
    accelerate_config: Path | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
    poll_s: float = 0.5,
    grace_s: float = GRACE_S,
    threads: int | None = None,
) -> Trained:
    """Run a training in other processes to its end, or go on with one that was cut off.

    Args:
        plan: what to do; the same plan again goes on where its folder says.
        processes: on this machine, one per GPU; by the configuration or 1 where None.
        accelerate_config: file that `accelerate config` wrote, in place of one made here.
        on_event: told what the training writes into its log, in this thread.
        stopped: asked every `poll_s`; the training then ends between two steps.
        poll_s: seconds between two looks.
        grace_s: seconds a stopped training may take before it is killed.
        threads: processor threads per process; the machine's share of each where None.
    Raises:
        Cancelled: `stopped` said so; the state is kept.
        TrainingKilled: a process was ended by a signal; its state of the last save is kept.
        TrainingFailed: a fault nobody foresaw.
        DiskFull: no room for the plan, or for what the training writes.
        Whatever `clara.training.train.train` raises.
    """
    check(plan)
    tail, asked_at = Tail(plan.out), None
    argv = command(plan, processes, accelerate_config, threads)
    with _started(plan, argv, processes or 1) as running:
        while not running.ended():
            if asked_at is None and stopped():
                asked_at = time.monotonic()
                running.stop()
            if asked_at is not None and time.monotonic() - asked_at > grace_s:
                break
            _tell(tail, on_event)
            time.sleep(poll_s)
    _tell(tail, on_event)
    if running.popen.returncode == 0:
        return trained_in(plan.out, _progress(plan.out))
    raise _error(plan.out, running, stopped=asked_at is not None)


def command(
    plan: Plan, processes: int | None, accelerate_config: Path | None, threads: int | None
) -> list[str]:
    """The `accelerate launch` that runs a plan.

    A configuration of our own is always named: without one, accelerate would read whatever lies
    in the user's home.
    """
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    share = threads or max(cores // (processes or 1), 1)
    options = ["--config_file", str(accelerate_config or plan.out / CONFIGURATION)]
    if accelerate_config is not None and processes is not None:
        options += ["--num_processes", str(processes)]
    options += ["--mixed_precision", "no", "--num_cpu_threads_per_process", str(share)]
    started = [sys.executable, "-m", "accelerate.commands.launch", *options]
    return [*started, "--module", MAIN, str(plan.out / "plan.json"), "--leave-with-starter"]


def configuration(plan: Plan, processes: int) -> dict[str, Any]:
    """What accelerate is told of one machine, in the form of its own configuration files."""
    _, _, gpu = plan.device.partition(":")
    return {
        "compute_environment": "LOCAL_MACHINE",
        # its launcher for several processes goes by this name on processors too
        "distributed_type": "MULTI_GPU" if processes > 1 else "NO",
        "num_machines": 1,
        "machine_rank": 0,
        "num_processes": processes,
        "main_process_port": 0,
        "gpu_ids": gpu or "all",
        "use_cpu": plan.device == "cpu",
        "mixed_precision": "no",
    }


@dataclass(frozen=True)
class _Running:
    """The launcher, and where its output begins."""

    popen: subprocess.Popen[bytes]
    output: Path
    begins: int

    def ended(self) -> bool:
        """Whether it is over; its number stays its own until `end`."""
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.popen.pid, how) is not None

    def stop(self) -> None:
        """Ask the processes that train to end; the launcher waits for them."""
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.popen.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if MAIN in process.cmdline():
                        process.terminate()

    def end(self) -> None:
        """Leave nothing of the training behind, whatever happened to its launcher."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        if self.popen.stdin is not None:
            self.popen.stdin.close()

    def said(self) -> str:
        """Everything the processes wrote since they were started."""
        with self.output.open("rb") as file:
            file.seek(self.begins)
            return file.read().decode("utf-8", errors="replace")


@contextmanager
def _started(plan: Plan, argv: Sequence[str], processes: int) -> Iterator[_Running]:
    """A training on its way; gone when the block ends."""
    output = plan.out / outcome.OUTPUT
    # a single device is made the only one, so that it is the first
    told = replace(plan, device=plan.device.partition(":")[0])
    write_whole(plan.out / "plan.json", json.dumps(told.as_dict(), indent=2) + "\n")
    chosen = json.dumps(configuration(plan, processes), indent=2)
    write_whole(plan.out / CONFIGURATION, chosen + "\n")
    (plan.out / outcome.ERROR).unlink(missing_ok=True)
    with explained(plan.out), output.open("ab") as sink:
        begins = sink.tell()
        popen = subprocess.Popen(  # noqa: S603 - our own interpreter and constants
            argv,
            stdin=subprocess.PIPE,  # closes when this process is gone, however it ends
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"},
            start_new_session=True,
        )
    running = _Running(popen, output, begins)
    try:
        yield running
    finally:
        running.end()


def _tell(tail: Tail, on_event: Callable[[Event], None]) -> None:
    for event in tail.new():
        on_event(event)


def _progress(out: Path) -> Progress:
    path = out / "state" / "progress.json"  # of hosts without a shared folder, the first has it
    return Progress(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Progress()


def _error(out: Path, running: _Running, *, stopped: bool) -> ClaraError:
    """Why a training did not come to its end."""
    found = outcome.read_error(out)
    said, status = running.said(), running.popen.returncode
    ended_by = signal.Signals(-status) if status < 0 else signal_in(said)
    words = f"; its last words:\n{last_words(said)}\n" if last_words(said) else ""
    if isinstance(found, TrainingFailed) and ended_by is not None:
        return _killed(ended_by, "")  # the others only found their connection closed
    if found is not None:
        return found
    if stopped:
        return Cancelled(
            "the training was cancelled, took too long to end and was killed",
            remedy="Start it again as before, and it goes on from its last state",
        )
    if ended_by is not None:
        return _killed(ended_by, words)
    free = shutil.disk_usage(out).free
    if free < LEAST_ROOM:
        return DiskFull(f"no room left in {out} ({free} bytes free)", field=str(out))
    return TrainingFailed(
        f"the training ended with status {status}{words}",
        remedy=f"The whole of what it said is in {running.output}",
    )


def _killed(ended_by: signal.Signals, words: str) -> TrainingKilled:
    why = {
        signal.SIGKILL: "Probably the kernel's out-of-memory killer: lower optimiser.micro_tokens, "
        "set optimiser.recompute, or give the machine more memory. ",
        signal.SIGBUS: "Probably the disk or shared memory is full. ",
    }.get(ended_by, "")
    return TrainingKilled(
        f"the training's process was ended by {ended_by.name}{words}",
        remedy=f"{why}Started again as before, it goes on from its last state",
    )
