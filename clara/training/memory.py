"""A device that is full, told by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clara.errors import OutOfMemory


@contextmanager
def explained(what: str, *, micro_tokens: int) -> Iterator[None]:
    """A device's own error becomes OutOfMemory.

    Args:
        what: what did not fit.
        micro_tokens: token places of one pass, the number that decides most of the memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not told and "can't allocate memory" not in str(error):
            raise
        why = (str(error) or repr(error)).splitlines()[0]
        raise OutOfMemory(
            f"{what} does not fit the device: {why}",
            field="optimiser.micro_tokens",
            limit=micro_tokens,
            remedy="Lower optimiser.micro_tokens, set optimiser.recompute, or take a larger device",
        ) from error
