"""Training records as the three stages read them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["qa", "paraphrase"]


class Stage(IntEnum):
    """The stages of training, in their order; each starts from the checkpoint of the one before."""

    COMPRESSION = 1
    """The compressor learns to keep what a document says."""
    INSTRUCTION = 2
    """The generator learns to answer from the latents of a fixed number of documents."""
    END_TO_END = 3
    """The query reasoner learns to choose among candidates, the generator to read the chosen."""

    @property
    def title(self) -> str:
        """For a person: `stage 3 (end to end)`."""
        return f"stage {self.value} ({self.name.lower().replace('_', ' ')})"


@dataclass(frozen=True, slots=True)
class CompressionRecord:
    """Stage 1: one document, and what can be said of it."""

    id: str
    source: str
    """Name of the data set it is from; empty where the file names none."""
    kind: Kind
    document: str
    pairs: tuple[tuple[str, str], ...]
    """Questions with their answers, at least one; none for a paraphrase."""
    restatement: str
    """The document in other words; empty for `qa`."""


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """Stages 2 and 3: a question, its documents, and the answer to learn."""

    id: str
    source: str
    """Name of the data set it is from; empty where the file names none."""
    question: str
    documents: tuple[str, ...]
    answer: str
    positives: tuple[int, ...]
    """Which documents hold the answer, counted from 0; empty where that is not known."""


Record: TypeAlias = CompressionRecord | QuestionRecord
