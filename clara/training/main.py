"""The process that trains: `python -m clara.training.main PLAN.json`, once per GPU.

It writes `log.jsonl`, states and checkpoints into the plan's folder and logs to standard error.
SIGTERM and SIGINT end it between two steps, with its state kept. Exit status 0 is done, 3
cancelled, 1 an error, which `error.json` names.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from clara.training.outcome import DONE, status_of, write_error
from clara.training.plan import Plan, plan_from

log = logging.getLogger(__name__)

LEAVE_S = 60.0
"""Seconds a training without its starter has to end by itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the training a file describes. Returns the exit status."""
    chosen = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if chosen.leave_with_starter:
        threading.Thread(target=_leave_with_starter, args=(stop,), daemon=True).start()
    folder = chosen.plan.parent
    try:
        plan = plan_from(json.loads(chosen.plan.read_text(encoding="utf-8")))
        folder = plan.out
        _train(plan, stop)
    except Exception as error:
        log.exception("the training ended early")
        write_error(folder, error)
        return status_of(error)
    return DONE


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="clara.training.main", description=__doc__)
    parser.add_argument("plan", type=Path, help="a plan as JSON")
    parser.add_argument(
        "--leave-with-starter",
        action="store_true",
        help="end when standard input closes, which it does when the starter is gone",
    )
    return parser.parse_args(argv)


def _train(plan: Plan, stop: threading.Event) -> None:
    # here, so that signals are minded while torch is loaded
    from accelerate import PartialState

    from clara.training.train import train

    try:
        done = train(plan, stopped=stop.is_set)
        log.info("done after step %d; the last checkpoint is %s", done.progress.step, done.last)
    finally:
        if PartialState._shared_state:  # there may be none yet, and asking would make one
            PartialState().destroy_process_group()


def _leave_with_starter(stop: threading.Event) -> None:
    """End cleanly, or by force after a while, when nobody holds our standard input open."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    log.warning("whoever started this training is gone; it ends")
    stop.set()
    threading.Event().wait(LEAVE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
