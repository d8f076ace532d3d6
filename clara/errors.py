"""Every error raised on purpose: what happened, with the values, and what to do about it.

`api/errors.py` turns them into RFC 9457 problems, the command line into one line of text,
and a worker into the error kept with a failed run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ClaraError(Exception):
    """Base of all errors of this project.

    Args:
        message: what happened, with the values that caused it.
        field: the input at fault, as the caller named it (a JSON pointer, a file path, an option).
        limit: the bound that was passed, in the unit the message names.
        remedy: what the caller can do now.
    """

    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without any change by the caller."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        limit: int | float | str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.limit = limit
        self.remedy = remedy

    @property
    def code(self) -> str:
        """The class name in kebab case: stable, for programs to compare."""
        name = type(self).__name__
        return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")

    def as_dict(self) -> dict[str, Any]:
        """What is kept with a failed run and shown to a client; no empty entries."""
        parts = {
            "code": self.code,
            "message": self.message,
            "field": self.field,
            "limit": self.limit,
            "remedy": self.remedy,
            "retryable": self.retryable,
        }
        return {key: value for key, value in parts.items() if value is not None}

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class InvalidInput(ClaraError):
    """The caller gave something that can never work."""


class EmptyText(InvalidInput):
    """A text that must say something holds only white space."""


class TextTooLong(InvalidInput):
    """A text is over its limit; nothing is ever cut silently."""


class InvalidText(InvalidInput):
    """Text that cannot be stored: control characters, lone surrogates, bytes that are not UTF-8."""


class TooManyDocuments(InvalidInput):
    """More documents in one request than the limit."""


class BodyTooLarge(InvalidInput):
    """A request body over the limit in bytes."""


class QuestionTooLong(InvalidInput):
    """A question over the limit."""


class InvalidFilter(InvalidInput):
    """A condition on metadata that no value could meet, or that cannot be read."""


class UnsupportedFile(InvalidInput):
    """A file of a kind no reader exists for."""


class DamagedFile(InvalidInput):
    """A file that its reader cannot make sense of."""


class EncryptedFile(InvalidInput):
    """A file that needs a password."""


class FileWithoutText(InvalidInput):
    """A file that opens but holds no text, such as a scan."""


class InvalidDataset(InvalidInput):
    """A file of training or evaluation records with a fault: which file, line and field."""


class FaultyRecords(InvalidDataset):
    """Files of training records with faults, the first of which are listed.

    Args:
        faults: JSON objects with file, line, field, kind, reason and value.
    """

    def __init__(
        self, message: str, *, faults: Sequence[Mapping[str, Any]] = (), **more: Any
    ) -> None:
        super().__init__(message, **more)
        self.faults = [dict(fault) for fault in faults]

    def as_dict(self) -> dict[str, Any]:
        """With the faults listed."""
        return super().as_dict() | {"faults": self.faults}


class InvalidSettings(InvalidInput):
    """A file of settings, or a variable, with a fault: which, and what it should be."""


class UnknownCollection(InvalidInput):
    """No collection of that name."""


class DuplicateCollection(InvalidInput):
    """A collection of that name exists already."""


class UnknownDocument(InvalidInput):
    """No document of that id."""


class UnknownQuestion(InvalidInput):
    """No question of that id."""


class UnknownRun(InvalidInput):
    """No run of that id."""


class RunNotRetryable(InvalidInput):
    """A run that has not failed, or that has nothing left to do."""


class UnknownCheckpoint(InvalidInput):
    """No checkpoint of that id or name is registered."""


class UnknownGeneration(InvalidInput):
    """A collection has no generation of that number, or none to go back to."""


class UnknownNight(InvalidInput):
    """No night of that id."""


class GenerationRefused(ClaraError):
    """A generation that ranks or answers worse than the active one does not take its place."""


class RecompressionFailed(ClaraError):
    """A part of a recompression was tried as often as allowed, and failed."""


class RecompressionBusy(InvalidInput):
    """A collection is being recompressed already."""


class LatentsNotReady(ClaraError):
    """Latent mode was asked for while some of the chosen passages have no latent yet."""


class DatabaseUnavailable(ClaraError):
    """Postgres does not answer."""

    retryable = True


class BrokerUnavailable(ClaraError):
    """Redis does not answer."""

    retryable = True


class IndexUnavailable(ClaraError):
    """A lexical or dense index does not answer in time."""

    retryable = True


class IndexMismatch(ClaraError):
    """An index holds something else than this release writes, such as another mapping."""


class SnapshotUnfit(ClaraError):
    """A snapshot file that is damaged, or of something else."""


class EngineClosed(ClaraError):
    """The engine thread was closed and takes no more work."""

    retryable = True


class LatentDamaged(ClaraError):
    """A stored latent block does not match its checksum or its shape."""


class CheckpointMismatch(ClaraError):
    """Latents made by one checkpoint were given to another."""


class InvalidCheckpoint(ClaraError):
    """A checkpoint folder that is incomplete or does not fit its base model."""


class InvalidTraining(InvalidInput):
    """A training that cannot run as asked: its configuration, its data, or where it starts from."""


class PromotionRefused(ClaraError):
    """A checkpoint the gate does not let through."""


class TrainingDiverged(ClaraError):
    """A loss is no number any more; the last good state is kept."""


class TrainingKilled(ClaraError):
    """The process of a training was ended from outside; it goes on from its last state."""

    retryable = True


class TrainingBusy(ClaraError):
    """Another process still trains in a training's folder."""

    retryable = True


class TrainingFailed(ClaraError):
    """The process of a training ended by a fault of its own; its log says more."""


class DiskFull(ClaraError):
    """No room left for what had to be written."""


class OutOfMemory(ClaraError):
    """A step needs more memory than the device has."""


class ModelMissing(ClaraError):
    """Model files that are not on this machine yet."""


class ServerFailed(ClaraError):
    """A server this command started did not come up."""


class PortBusy(ClaraError):
    """Another program listens on a port that is needed."""


class Cancelled(ClaraError):
    """The run was cancelled by its user."""
