"""Checkpoints that could not be loaded: why is told for a while, in place of another try."""

from __future__ import annotations

from time import monotonic
from uuid import UUID

from clara.db.tables import Checkpoint
from clara.errors import ClaraError, InvalidCheckpoint

REST_S, MOST_S = 30.0, 600.0
"""Seconds before one is tried again: at first, and at most; twice as many each time it fails."""


class Refusals:
    """By checkpoint; safe to share between threads.

    What is kept and raised refers to no frame it came through: those hold what was loaded so far.
    """

    def __init__(self) -> None:
        self._kept: dict[UUID, tuple[float, float, ClaraError]] = {}
        """Until when it rests, how long that is, and why."""

    def add(self, row: Checkpoint, error: Exception) -> None:
        """Remember why a checkpoint could not be loaded."""
        _, before, _ = self._kept.get(row.id, (0.0, REST_S / 2, None))
        rest = min(before * 2, MOST_S)
        self._kept[row.id] = (monotonic() + rest, rest, _plain(row, error))

    def forget(self, checkpoint_id: UUID) -> None:
        """It could be, by now."""
        self._kept.pop(checkpoint_id, None)

    def why(self, checkpoint_id: UUID) -> ClaraError | None:
        """What to raise for one that could not be loaded a moment ago: a new copy each time."""
        until, _, error = self._kept.get(checkpoint_id, (0.0, 0.0, None))
        return _copied(error) if error is not None and monotonic() < until else None


def _plain(row: Checkpoint, error: Exception) -> ClaraError:
    if isinstance(error, ClaraError):
        return _copied(error)
    return InvalidCheckpoint(
        f"checkpoint {row.name} ({row.id}) cannot be loaded: {type(error).__name__}: {error}",
        field="checkpoint",
        remedy="The worker's log says more; memory is the usual reason.",
    )


def _copied(error: ClaraError) -> ClaraError:
    return type(error)(error.message, field=error.field, limit=error.limit, remedy=error.remedy)
