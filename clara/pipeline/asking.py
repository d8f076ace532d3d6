"""A question on its way to an answer, and what answering needs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from clara.db.connect import OpenDb
from clara.filters import Filter
from clara.mentions import MIN_MENTION
from clara.nearness import MIN_COSINE, NOTHING_IS_FAR, bound
from clara.pipeline.reading import Tokenizer
from clara.retrieval.ports import DenseIndex, LatentStore, LexicalIndex
from clara.settings import Settings
from clara.types import LATENT_WEIGHT, Fusion, Mode, Rerank

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint
    from clara.model.models import Models
    from clara.serving.encoding import EncoderOnEngine
    from clara.serving.engine import Engine


@dataclass(frozen=True)
class Limits:
    """How much is searched and read."""

    bm25_top_k: int
    dense_top_k: int
    max_candidates: int
    min_score: float
    """Latent cosine under which a passage is not read; only where latents alone rank."""
    max_question_tokens: int
    rerank: Rerank = Rerank.LATENT
    """What ranks where nobody asks for another: for questions that the system asks itself."""
    latent_weight: float = LATENT_WEIGHT
    """Of the latents' voice beside words and dense vectors, which have 1 each."""
    min_cosine: float = NOTHING_IS_FAR
    """Of dense vectors: what one candidate must reach for there to be an answer."""
    min_mention: float = NOTHING_IS_FAR
    """Of the encoder's tokens: how near the passages read must come to a name they do not have."""
    min_answerability: float | None = None
    """What the best of the passages read must reach; None for what was measured with the encoder,
    and not asked of one that reads no pairs."""


def limits_of(config: Settings, checkpoint: Checkpoint) -> Limits:
    """What the settings say, and where they say nothing, what was measured with a checkpoint."""
    measured = checkpoint.config.latent_weight
    default = config.dense_vectors == "encoder" and not config.sentence_encoder
    return Limits(
        bm25_top_k=config.bm25_top_k,
        dense_top_k=config.dense_top_k,
        max_candidates=config.max_candidates,
        min_score=checkpoint.least_score(config.min_score),
        max_question_tokens=config.max_question_tokens,
        rerank=config.rerank or (Rerank.LATENT if measured is None else Rerank.BOTH),
        latent_weight=config.latent_weight or measured or LATENT_WEIGHT,
        min_cosine=bound(config.min_cosine, MIN_COSINE, default_encoder=default),
        min_mention=bound(config.min_mention, MIN_MENTION, default_encoder=default),
        min_answerability=config.min_answerability,
    )


@dataclass(frozen=True)
class Answering:
    """What answering needs."""

    open_db: OpenDb
    lexical: LexicalIndex
    dense: DenseIndex
    latents: LatentStore
    encoder: EncoderOnEngine
    tokenizer: Tokenizer
    models: Models
    engine: Engine
    pool: Executor
    """Where the two retrievers run at once."""
    checkpoint_id: UUID
    limits: Limits
    latents_of: str | None = None
    """Fingerprint of the latents it reads, where they were made in another precision."""

    @property
    def fingerprint(self) -> str:
        """Of the latents it reads."""
        return self.latents_of or self.models.fingerprint


@dataclass(frozen=True)
class Asked:
    """A question, detached from its row."""

    id: UUID
    collection_id: UUID
    text: str
    mode: Mode
    top_k: int
    max_answer_tokens: int
    filters: Sequence[Filter] = ()
    """What the metadata of a passage must fulfil, all of it."""
    fusion: Fusion = Fusion.UNION
    rerank: Rerank | None = None
    """None: by the limits, which go by the checkpoint."""
    explain: bool = False
    """Whether its candidates are kept."""
    search_only: bool = False
    """Found and ranked, not answered."""
