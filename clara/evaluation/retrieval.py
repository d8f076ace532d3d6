"""How well passages are found: each retriever alone, both together, and ranked by latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from clara.evaluation.progress import Progress, untold
from clara.evaluation.retrieval_data import Question, SearchSet
from clara.evaluation.retrieval_scores import CUTS, scores, summary
from clara.evaluation.retrieval_vectors import (
    Blocks,
    Embedding,
    ExactVectors,
    Vectors,
    embedding_of,
)
from clara.model.models import Models
from clara.retrieval import hybrid
from clara.retrieval.ports import LexicalIndex, VectorEncoder
from clara.types import LATENT_WEIGHT, Candidate, Hit

WRITTEN = 10_000
"""Passages of one write."""

GROUP = 64
"""Questions whose candidates are compressed together, the new ones among them."""

Order = Sequence[UUID]
"""Different passages, best first."""

T = TypeVar("T")
K = TypeVar("K", bound=str)


class Method(StrEnum):
    """What puts passages in order."""

    BM25 = "bm25"
    """Words alone."""
    DENSE = "dense"
    """Vectors alone."""
    UNION = "union"
    """The first of both, by the better of the two ranks."""
    RRF = "rrf"
    """The same passages by reciprocal rank fusion."""
    FUSED = "union+fusion"
    """The same by what ranks where no trained latents do: both ranks, the dense one exact."""
    LATENT = "union+latent"
    """The same by the cosine of a trained checkpoint's latents."""
    BOTH = "union+latent+fusion"
    """The same by all three ranks: words, exact dense vectors, latents."""


BY_LATENTS = (Method.LATENT, Method.BOTH)
"""What only a trained checkpoint makes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Passages that are taken from each retriever, and that are ranked, as a question has them."""

    lexical: int = 25
    dense: int = 12
    candidates: int = 50
    latent_weight: float = LATENT_WEIGHT
    """Of the latents' voice beside words and dense vectors, which have 1 each."""

    @property
    def depth(self) -> int:
        """Hits asked of each retriever: it is also judged alone."""
        return max(*CUTS, self.lexical, self.dense)


@dataclass(frozen=True)
class Found:
    """Of one question."""

    orders: dict[Method, Order]
    """By every method but those of latents."""
    candidates: Sequence[Candidate]
    """The union, as far as it is ranked."""
    cosines: Mapping[UUID, float]
    """Of the candidates, exact, by dense vectors."""


@dataclass(frozen=True)
class Retrievers:
    """What finds passages, and what ranks them."""

    lexical: LexicalIndex
    """One to write to."""
    encoder: VectorEncoder | None = None
    """What makes vectors; None: the latents of `models`."""
    models: Models | None = None
    """A checkpoint, used in the calling thread; its latents rank where it is trained."""
    limits: Limits = field(default_factory=Limits)
    kept: Path | None = None
    """Folder that keeps the vectors of passages for the next time."""


def measure(
    data: SearchSet, retrievers: Retrievers, *, progress: Progress = untold
) -> dict[Method, dict[str, Any]]:
    """Search a set in every way: the numbers of `clara.evaluation.retrieval_scores` by method.

    With them stand `passages`, how many were searched, `vectors`, what made them, and under the
    latents `checkpoint`, `cut`, the passages of which only the beginning was read, and
    `latent_weight` where they are a voice among others.

    Args:
        data: passages and questions.
        retrievers: encoder or models at least.
        progress: told of `passages`, `questions` and `latents`, the last two counted in questions.
    """
    models = retrievers.models
    blocks = Blocks(models, data.passages) if models else None
    embedding = embedding_of(retrievers.encoder, blocks, retrievers.kept)
    limits = retrievers.limits
    found = search(data, retrievers.lexical, embedding, limits, progress=progress)
    ordered = [one.orders for one in found]
    told: dict[Method, dict[str, Any]] = {}
    if models and blocks and models.checkpoint.trained:
        ranked = latent_orders(data.questions, found, blocks, limits, progress=progress)
        ordered = [one | more for one, more in zip(ordered, ranked, strict=True)]
        by = {"checkpoint": models.checkpoint.name, "cut": blocks.cut}
        told = {Method.LATENT: by, Method.BOTH: by | {"latent_weight": limits.latent_weight}}
    common = {"passages": len(data.passages), "vectors": embedding.name}
    return {
        method: summary(each) | common | told.get(method, {})
        for method, each in rows(data.questions, ordered).items()
    }


def orders(
    lexical: Sequence[Hit],
    dense: Sequence[Hit],
    limits: Limits,
    cosines: Callable[[Sequence[UUID]], Mapping[UUID, float]],
) -> Found:
    """What every method but the latents makes of one question's hits.

    Args:
        lexical: best first, `limits.depth` of them or as many as there are.
        dense: the same.
        limits: what is taken of both.
        cosines: exact ones of given passages, in the space of `dense`.
    """
    taken = lexical[: limits.lexical], dense[: limits.dense]
    candidates = hybrid.union(*taken, limit=limits.candidates)
    exact = cosines(_ids(candidates))
    found: dict[Method, Order] = {
        Method.BM25: _ids(lexical),
        Method.DENSE: _ids(dense),
        Method.UNION: _ids(candidates),
        Method.RRF: _ids(hybrid.rrf(*taken, limit=limits.candidates)),
        Method.FUSED: _by(hybrid.fuse(candidates, exact)),
    }
    return Found(found, candidates, exact)


def search(
    data: SearchSet,
    lexical: LexicalIndex,
    embedding: Embedding,
    limits: Limits,
    *,
    progress: Progress = untold,
) -> list[Found]:
    """Ask every question of a set; what each method found for it.

    The passages are written under a collection of their own, which is dropped at the end.

    Args:
        data: passages and questions.
        lexical: an index to write to.
        embedding: what makes vectors; they are compared one by one.
        limits: what is taken of both retrievers.
        progress: told of `passages` and `questions`.
    """
    ids = [passage.id for passage in data.passages]
    vectors = ExactVectors(ids, embedding.passages(data.passages, progress))
    asked = embedding.questions([question.text for question in data.questions])
    collection, found = uuid4(), list[Found]()
    try:
        for part in _parts(data.passages, WRITTEN):
            lexical.put(collection, part)
        for question, vector in zip(data.questions, asked, strict=True):
            by_words = lexical.search(
                collection, question.text, limit=limits.depth, only=question.among
            )
            by_vector = vectors.search(vector, limit=limits.depth, only=question.among)

            def cosines(passages: Sequence[UUID], vector: Vectors = vector) -> dict[UUID, float]:
                return vectors.scores(vector, passages)

            found.append(orders(by_words, by_vector, limits, cosines))
            progress("questions", len(found), len(data.questions))
    finally:
        lexical.drop(collection)
    return found


def latent_orders(
    questions: Sequence[Question],
    found: Sequence[Found],
    blocks: Blocks,
    limits: Limits,
    *,
    progress: Progress = untold,
) -> list[dict[Method, Order]]:
    """Candidates of every question as a trained checkpoint ranks them: BY_LATENTS.

    Args:
        questions: read up to the checkpoint's length.
        found: of each question; of candidates that score the same the first stays first.
        blocks: latents of the passages, made as they are needed.
        limits: with the weight of the latents' voice.
        progress: told of `latents`, counted in questions.
    """
    cosines = latent_cosines(questions, found, blocks, progress=progress)
    ranked: list[dict[Method, Order]] = []
    for one, latents in zip(found, cosines, strict=True):
        both = hybrid.fuse(one.candidates, one.cosines, latents, weight=limits.latent_weight)
        ranked.append({Method.LATENT: _by(latents), Method.BOTH: _by(both)})
    return ranked


def latent_cosines(
    questions: Sequence[Question],
    found: Sequence[Found],
    blocks: Blocks,
    *,
    progress: Progress = untold,
) -> list[dict[UUID, float]]:
    """Exact cosines of every question's latents with those of its candidates, in their order."""
    cosines: list[dict[UUID, float]] = []
    candidates = [_ids(one.candidates) for one in found]
    for part in _parts(list(zip(questions, candidates, strict=True)), GROUP):
        blocks.need({passage for _, passages in part for passage in passages})
        queries = blocks.queries([question.text for question, _ in part])
        for query, (_, passages) in zip(queries, part, strict=True):
            cosines.append(dict(zip(passages, blocks.scores(query, passages), strict=True)))
        progress("latents", len(cosines), len(questions))
    return cosines


def rows(
    questions: Sequence[Question], found: Sequence[Mapping[K, Order]]
) -> dict[K, list[dict[str, float]]]:
    """Scores of every question by name of the method, for what each found for it."""
    methods = list(found[0]) if found else []
    return {
        method: [
            scores(one[method], question.grades)
            for question, one in zip(questions, found, strict=True)
        ]
        for method in methods
    }


def _by(scores: Mapping[UUID, float]) -> list[UUID]:
    """Best first; of equal ones the first stays first."""
    return sorted(scores, key=lambda passage: -scores[passage])


def _ids(found: Sequence[Hit] | Sequence[Candidate]) -> list[UUID]:
    return [one.passage_id for one in found]


def _parts(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]
