"""What launchers say of processes that ended: the signal, and what stood before it."""

from __future__ import annotations

import re
import signal

WORDS = 15
"""Lines of output that an error quotes."""

_BY_NAME = re.compile(r"died with <Signals\.(SIG\w+)")
_BY_NUMBER = re.compile(r"exitcode\s*:\s*-(\d+)")
_LAUNCHERS = re.compile(r"accelerate[/.]commands|torch/distributed/(elastic|launcher|run)")


def signal_in(said: str) -> signal.Signals | None:
    """The signal that ended the first process to end, as accelerate or torch tell it.

    Those that torch sends to the other processes afterwards are not meant.
    """
    if found := _BY_NAME.search(said):
        return signal.Signals[found[1]]
    if found := _BY_NUMBER.search(said.partition("Root Cause")[2] or said):
        return signal.Signals(int(found[1]))
    return None


def last_words(said: str) -> str:
    """The end of what the training itself said, without its launcher's account."""
    lines = said.splitlines()
    ends = len(lines)
    for at, line in enumerate(lines):
        if line.startswith("Traceback") and any(map(_LAUNCHERS.search, lines[at : at + 6])):
            ends = at
            break
        if _LAUNCHERS.search(line):
            ends = at
            break
    return "\n".join(lines[max(ends - WORDS, 0) : ends])
