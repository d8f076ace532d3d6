"""What is measured, and how: the choices of one evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from clara.errors import InvalidInput


class Reading(StrEnum):
    """What the model reads beside the question."""

    LATENT = "latent"
    """The latents of the chosen passages."""
    TEXT = "text"
    """The chosen passages as plain text."""
    NONE = "none"
    """Nothing: what it knows by itself."""


class Setting(StrEnum):
    """Which passages are chosen among a record's candidates."""

    NORMAL = "normal"
    """The best `top_k` by the ranker."""
    ORACLE = "oracle"
    """The gold ones first, then the ranker's best others, up to `top_k`."""
    WITHHELD = "withheld"
    """The ranker's best without the gold ones: what is left does not answer, a refusal is right."""


class Ranker(StrEnum):
    """What puts the candidates in order."""

    LATENT = "latent"
    """Cosine of query latent and passage latent."""
    BM25 = "bm25"
    """Words in common, weighted by their rarity."""
    GIVEN = "given"
    """Nothing: the order of the file."""


class Reader(StrEnum):
    """Which weights read plain text; latents are always read by the generator."""

    BASE = "base"
    """The base as it is."""
    GENERATOR = "generator"
    """The base with the generator's adapter, as for a checkpoint trained on text."""


class Dense(StrEnum):
    """What makes the vectors of a search."""

    ENCODER = "encoder"
    """The sentence encoder."""
    LATENTS = "latents"
    """The checkpoint: the mean row of a latent."""


class Among(StrEnum):
    """What is searched for a question of a file of candidates."""

    ALL = "all"
    """The passages of all questions of its file."""
    OWN = "own"
    """Its own candidates."""


@dataclass(frozen=True, slots=True)
class Options:
    """One evaluation, apart from its model and its questions."""

    mode: Reading = Reading.LATENT
    setting: Setting = Setting.NORMAL
    ranker: Ranker | None = None
    """None: latent where a trained checkpoint reads latents, else bm25."""
    reader: Reader = Reader.BASE
    top_k: int = 5
    """Passages read per question; fewer where a record has fewer."""
    max_new_tokens: int = 64
    """Most tokens of an answer."""
    batch_tokens: int | None = None
    """Token places of one batch of answers, prompt, answer and filling; None: by the device."""
    seed: int = 0
    """Of the bootstrap intervals; answers are greedy."""

    def __post_init__(self) -> None:
        for name in ("top_k", "max_new_tokens", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInput(f"{name} must be 1 or more, got {value}", field=name, limit=1)

    def ranker_for(self, *, trained: bool) -> Ranker:
        """The ranker in effect for a checkpoint that is `trained` or not."""
        if self.ranker is not None:
            return self.ranker
        return Ranker.LATENT if trained and self.mode is Reading.LATENT else Ranker.BM25
