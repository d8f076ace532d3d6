"""Passages of documents that came with a question, and which of them are worth compressing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from clara.evaluation.bm25 import Bm25
from clara.rag.config import Retrieval
from clara.retrieval import hybrid
from clara.types import LATENT_WEIGHT, Candidate, Hit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clara.library.compressing import Splitter


class Encoder(Protocol):
    """What finding needs of a sentence encoder."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (texts, dimension)."""
        ...


@dataclass(frozen=True, slots=True)
class Passage:
    """A span of one of the documents."""

    document: int
    """Position of the document, from 0."""
    start: int
    """First character in the document, from 0."""
    end: int
    text: str


def passages_of(documents: Sequence[str], splitter: Splitter) -> list[Passage]:
    """All passages, document by document.

    Raises:
        InvalidInput: a document with a character that takes more tokens than one passage.
    """
    return [
        Passage(position, span.start, span.end, document[span.start : span.end])
        for position, document in enumerate(documents)
        for span in splitter.split(document)
    ]


def narrow(
    question: str, passages: Sequence[Passage], retrieval: Retrieval, encoder: Encoder | None
) -> list[int]:
    """Positions of the passages worth compressing, best first; all where they are few enough.

    Args:
        question: any text.
        passages: of all documents.
        retrieval: how many.
        encoder: None finds by words alone.
    """
    if len(passages) <= retrieval.candidates:
        return list(range(len(passages)))
    lexical = _lexical(question, passages)[: retrieval.bm25_top_k]
    dense: list[Hit] = []
    if encoder is not None:
        dense = _best(_cosines(question, passages, encoder))[: retrieval.dense_top_k]
    fuse = {"union": hybrid.union, "rrf": hybrid.rrf}[retrieval.fusion]
    found = fuse(lexical, dense, limit=retrieval.candidates)
    return [candidate.passage_id.int for candidate in found] or list(range(retrieval.candidates))


def fused(
    question: str,
    passages: Sequence[Passage],
    encoder: Encoder | None,
    latents: Sequence[float] | None = None,
    *,
    weight: float = LATENT_WEIGHT,
) -> list[float]:
    """A score in [0, 1] per passage from its ranks by words and, with one, by the encoder.

    Args:
        question: any text.
        passages: what is ranked.
        encoder: None ranks without it.
        latents: cosines with the question's latents, in the passages' order; a voice of `weight`.
        weight: where words and encoder have 1 each.
    """
    ranks = {hit.passage_id: at for at, hit in enumerate(_lexical(question, passages), start=1)}
    candidates = [
        Candidate(UUID(int=at), lexical_rank=ranks.get(UUID(int=at))) for at in range(len(passages))
    ]
    cosines = [] if encoder is None else _cosines(question, passages, encoder)
    voice = None if latents is None else {UUID(int=at): cos for at, cos in enumerate(latents)}
    dense = {hit.passage_id: hit.score for hit in cosines}
    scores = hybrid.fuse(candidates, dense, voice, weight=weight)
    return [scores[candidate.passage_id] for candidate in candidates]


def _lexical(question: str, passages: Sequence[Passage]) -> list[Hit]:
    """Passages that share a word with the question, best first."""
    texts = [passage.text for passage in passages]
    scores = Bm25.of(texts).scores(question, texts)
    return _best([Hit(UUID(int=at), score) for at, score in enumerate(scores) if score > 0])


def cosines_of(question: str, texts: Sequence[str], encoder: Encoder) -> list[float]:
    """Of the question's vector with those of the texts."""
    vectors = encoder.encode([question, *texts])
    found: list[float] = (vectors[1:] @ vectors[0]).tolist()
    return found


def _cosines(question: str, passages: Sequence[Passage], encoder: Encoder) -> list[Hit]:
    scores = cosines_of(question, [passage.text for passage in passages], encoder)
    return [Hit(UUID(int=at), score) for at, score in enumerate(scores)]


def _best(hits: Sequence[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: -hit.score)
