"""Values that only flow from one part to another."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class Mode(StrEnum):
    """How the generator reads the chosen passages."""

    LATENT = "latent"
    """As latents: a few vectors per passage."""
    TEXT = "text"
    """As plain text: the base reads the passages, or a generator that has learned to."""
    AUTO = "auto"
    """Latents where a trained checkpoint answers well from them and every chosen passage has a
    faithful one; else text."""


class Fusion(StrEnum):
    """How what two searches found becomes one ranking."""

    UNION = "union"
    """By the better of the two ranks."""
    RRF = "rrf"
    """By the sum of the reciprocal ranks."""


class Rerank(StrEnum):
    """What puts the candidates of a question in order, once latents mean something."""

    LATENT = "latent"
    """The cosine of their latents with the question's."""
    FUSION = "fusion"
    """Their ranks by words and by dense vectors; all there is without trained latents."""
    BOTH = "both"
    """These two ranks and the one by latents, a voice each."""


LATENT_WEIGHT = 0.5
"""Of the latents' voice under `both`, where nobody measured it for the checkpoint."""


class Fate(StrEnum):
    """What became of a candidate."""

    READ = "read"
    """Given to the generator."""
    BELOW_MIN_SCORE = "below_min_score"
    BEYOND_TOP_K = "beyond_top_k"
    """Others scored higher."""
    BEYOND_CANDIDATES = "beyond_candidates"
    """More were found than are ranked; it has no score."""


class LatentForm(StrEnum):
    """What a number of a stored latent is."""

    BF16 = "bf16"
    """As the model computed it."""
    INT8 = "int8"
    """A step of 1/127 of its row's largest number: half the bytes."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `[start, end)` of a text, counted in code points from 0."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PassageSpan:
    """Where one passage lies in its document, and how long it is for the model.

    `tokens` counts the passage text alone in the base model's tokenizer, without special tokens.
    """

    start: int
    end: int
    tokens: int


@dataclass(frozen=True, slots=True)
class PassageText:
    """One passage as the lexical index stores it."""

    id: UUID
    document_id: UUID
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found by one search, and its score in that search's own unit."""

    passage_id: UUID
    score: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage found by at least one retriever, before re-ranking.

    `lexical` is the BM25 score, `dense` the cosine in [-1, 1]; None where that retriever did not
    return the passage. Ranks count from 1.
    """

    passage_id: UUID
    lexical: float | None = None
    lexical_rank: int | None = None
    dense: float | None = None
    dense_rank: int | None = None


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A text on its way in, from a request or a file.

    `external_id` is the caller's own name for it (a path, a key); writing the same one again
    replaces the document. `metadata` holds strings, numbers and booleans.
    """

    text: str
    title: str = ""
    external_id: str | None = None
    source: str | None = None
    metadata: dict[str, str | int | float | bool] = field(default_factory=dict)
