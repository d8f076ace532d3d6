"""Run a function in a fresh process, where nothing has used memory or been compiled yet."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE_S = 5.0
"""Between asking a process to end and ending it."""


class ChildFailed(RuntimeError):
    """The process ended without a result; its own words are on standard error."""


def in_child(
    function: Callable[P, R], timeout_s: float | None, *args: P.args, **options: P.kwargs
) -> R:
    """What `function` returns there; it, its arguments and its result must be picklable.

    Raises:
        TimeoutError: no result within `timeout_s` seconds, the start included; it is ended.
        ChildFailed: it raised, or died.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(there, function, args, options), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(timeout_s):
            raise TimeoutError(f"no result within {timeout_s} seconds")
        result: R = here.recv()
    except EOFError:
        process.join()
        raise ChildFailed(f"{function.__name__} ended with code {process.exitcode}") from None
    finally:
        here.close()
        process.terminate()
        process.join(PATIENCE_S)
        process.kill()
        process.join()
    return result


def _run(
    there: Connection,
    function: Callable[..., object],
    args: tuple[object, ...],
    options: dict[str, object],
) -> None:
    there.send(function(*args, **options))
