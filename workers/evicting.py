"""A checkpoint on its way out of memory."""

from __future__ import annotations

import gc
import logging
import weakref
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from clara.serving.engine import Engine

if TYPE_CHECKING:
    from clara.model.models import Models

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""Seconds that what is in hand may keep a checkpoint before the next one is loaded beside it."""

LOOK_S = 0.05


class Evicted:
    """The roles of a checkpoint nobody can get any more; questions in hand may still use them."""

    def __init__(self, models: Models) -> None:
        roles = (models.compressor, models.reasoner, models.generator)
        self._roles = [weakref.ref(role) for role in roles]
        self._name = models.checkpoint.name

    def used(self) -> bool:
        """Whether anybody still holds a role."""
        return any(role() is not None for role in self._roles)

    def wait(self, engine: Engine, *, patience_s: float = PATIENCE_S) -> bool:
        """Wait until nobody does, then give back its memory. Returns whether it is free.

        Args:
            engine: where models compute, and the device is spoken to.
            patience_s: seconds after which it is let be: whoever uses it may wait for the next
                checkpoint himself.
        """
        ends, pause = monotonic() + patience_s, Event()
        while self.used() and monotonic() < ends:
            pause.wait(LOOK_S)
        if self.used():
            log.warning("checkpoint %s is still in use; the next one comes beside it", self._name)
        engine.submit(_give_back, urgent=True).result()
        return not self.used()


def _give_back() -> None:
    """Models refer to themselves in circles; a GPU's memory is kept by torch until it is told."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
