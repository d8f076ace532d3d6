"""How an evaluation says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told what is being counted (`passages` or `answers`), how many are done, and of how many."""


def untold(what: str, done: int, total: int) -> None:
    """Nobody wants to know."""
