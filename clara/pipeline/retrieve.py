"""A question's passages: found by both indexes, read from the record, ranked, and cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import UUID

from clara.errors import IndexUnavailable, QuestionTooLong
from clara.pipeline.asking import Answering, Asked
from clara.pipeline.considered import Considered
from clara.pipeline.record import Members, Read, has_passages, read, steady
from clara.pipeline.refusing import may_refuse, refused
from clara.retrieval import hybrid
from clara.retrieval.ports import DenseIndex, LexicalIndex
from clara.types import Candidate, Fate, Mode, Rerank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Retrieved:
    """Everything that was found for a question."""

    considered: Sequence[Considered]
    """Best first; those without a score last."""
    latents: dict[UUID, Tensor]
    reranked_by: Rerank
    degraded: list[str]
    timings: dict[str, float]
    """Milliseconds: retrieval, of which encode and latents are parts; rerank."""
    notice: str | None = None
    """Why nothing is read, where it can be said."""

    @property
    def chosen(self) -> list[Read]:
        """What the generator reads, best first."""
        return [one.read for one in self.considered if one.fate is Fate.READ]


@dataclass(frozen=True)
class _Found:
    """One look at indexes, record and latents."""

    passages: list[Read]
    degraded: list[str]
    latents: dict[UUID, Tensor]
    latents_ms: float


def retrieve(asked: Asked, answering: Answering) -> Retrieved:
    """Find, read and rank the passages for a question. Writes nothing.

    Raises:
        QuestionTooLong: more tokens than the limit.
        IndexUnavailable: neither retriever answers, or both have lost what they held.
    """
    _check(asked, answering)
    started = perf_counter()
    vector = answering.encoder.encode_questions([asked.text])[0]
    encoded = perf_counter()
    found = steady(asked.collection_id, answering.open_db, lambda: _look(asked, vector, answering))
    retrieved = perf_counter()
    considered, reranked_by = _rank(asked, vector, found, answering)
    considered, notice = refused(asked, considered, answering)
    timings = {
        "retrieval": ms(retrieved - started),
        "encode": ms(encoded - started),
        "latents": found.latents_ms,
        "rerank": ms(perf_counter() - retrieved),
    }
    return Retrieved(considered, found.latents, reranked_by, found.degraded, timings, notice)


def ms(seconds: float) -> float:
    """Milliseconds, rounded to what can be told apart."""
    return round(seconds * 1000, 1)


def _check(asked: Asked, answering: Answering) -> None:
    tokens = answering.tokenizer.count(asked.text)
    if tokens > answering.limits.max_question_tokens:
        raise QuestionTooLong(
            f"the question has {tokens} tokens, the limit is "
            f"{answering.limits.max_question_tokens}",
            field="question",
            limit=answering.limits.max_question_tokens,
            remedy="Ask a shorter question, or raise CLARA_MAX_QUESTION_TOKENS.",
        )


def _look(asked: Asked, vector: Vector, answering: Answering) -> _Found:
    """Search, and read what was found.

    An index may know passages that the record does not, or no longer: they must take no place of
    others. So a search that found some is done again among the passages of the record.
    """
    open_db, collection = answering.open_db, asked.collection_id
    scope = Members(open_db, collection, asked.filters) if asked.filters else None
    candidates, degraded = _search(asked, vector, answering, scope)
    passages = read(candidates, open_db)
    if scope is None and len(passages) < len(candidates):
        candidates, degraded = _search(asked, vector, answering, Members(open_db, collection, ()))
        passages = read(candidates, open_db)
    degraded = _with_missing(degraded, candidates, collection, answering)
    started = perf_counter()
    latents = _latents(asked, passages, answering)
    return _Found(passages, degraded, latents, ms(perf_counter() - started))


def _search(
    asked: Asked, vector: Vector, answering: Answering, scope: Members | None
) -> tuple[list[Candidate], list[str]]:
    return hybrid.search(
        answering.lexical,
        answering.dense,
        asked.collection_id,
        asked.text,
        vector,
        lexical_limit=answering.limits.bm25_top_k,
        dense_limit=answering.limits.dense_top_k,
        pool=answering.pool,
        scope=scope,
        fusion=asked.fusion,
    )


def _with_missing(
    degraded: list[str], candidates: Sequence[Candidate], collection: UUID, answering: Answering
) -> list[str]:
    """The retrievers that gave nothing, with those that hold nothing although there is something.

    Raises:
        IndexUnavailable: that leaves none.
    """
    found = {
        hybrid.LEXICAL: any(one.lexical_rank for one in candidates),
        hybrid.DENSE: any(one.dense_rank for one in candidates),
    }
    silent = [name for name in found if not found[name] and name not in degraded]
    indexes: dict[str, LexicalIndex | DenseIndex] = {
        hybrid.LEXICAL: answering.lexical,
        hybrid.DENSE: answering.dense,
    }
    empty = [name for name in silent if _is_gone(indexes[name], collection)]
    if not empty or not has_passages(collection, answering.open_db):
        return degraded
    if len(degraded) + len(empty) == len(found):
        raise IndexUnavailable(
            f"no index can be searched: {', '.join(empty)} without entries"
            + (f", {', '.join(degraded)} without an answer" if degraded else ""),
            remedy="Write the collection's documents again, which makes its indexes anew.",
        )
    return [*degraded, *empty]


def _is_gone(index: LexicalIndex | DenseIndex, collection: UUID) -> bool:
    try:
        return index.count(collection) == 0
    except IndexUnavailable:
        return True


def _latents(asked: Asked, passages: Sequence[Read], answering: Answering) -> dict[UUID, Tensor]:
    """Of the passages that are ranked; none where neither ranking nor reading wants them."""
    if asked.mode is not Mode.LATENT and not answering.models.checkpoint.trained:
        return {}
    ranked = passages[: answering.limits.max_candidates]
    ids = [one.candidate.passage_id for one in ranked]
    return answering.latents.get(answering.fingerprint, ids)


def _rank(
    asked: Asked, vector: Vector, found: _Found, answering: Answering
) -> tuple[list[Considered], Rerank]:
    """Order as asked for where latents mean something, else by both retrievers' ranks.

    A bound for latents is held against their cosine only where it is what ranks: a passage that
    words and vectors put first is not dropped for what a third voice says.
    """
    limit = answering.limits.max_candidates
    passages, beyond = found.passages[:limit], found.passages[limit:]
    ids = [one.candidate.passage_id for one in passages]
    wanted = asked.rerank or answering.limits.rerank
    by = wanted if _comparable(found, passages, answering) else Rerank.FUSION
    latents = None if by is Rerank.FUSION else _latent_scores(asked.text, ids, found, answering)
    heard = by is not Rerank.LATENT or may_refuse(asked, answering)
    cosines = _cosines(asked, vector, ids, answering) if heard else {}
    if by is Rerank.LATENT and latents is not None:
        scores, least = latents, answering.limits.min_score
    else:
        candidates = [one.candidate for one in passages]
        weight = answering.limits.latent_weight
        scores, least = hybrid.fuse(candidates, cosines, latents, weight=weight), float("-inf")
    scored = [replace(one, score=scores[one.candidate.passage_id]) for one in passages]
    ranked = sorted(scored, key=lambda one: -one.score)
    considered = [
        Considered(
            one,
            _fate(rank, one, asked, least),
            cosine=cosines.get(one.candidate.passage_id),
            latent=(latents or {}).get(one.candidate.passage_id),
        )
        for rank, one in enumerate(ranked, start=1)
    ]
    return considered + [Considered(one, Fate.BEYOND_CANDIDATES) for one in beyond], by


def _comparable(found: _Found, passages: Sequence[Read], answering: Answering) -> bool:
    """Whether every candidate has latents of a checkpoint that was trained to compare them."""
    trained = answering.models.checkpoint.trained
    return trained and bool(passages) and len(found.latents) == len(passages)


def _fate(rank: int, passage: Read, asked: Asked, least: float) -> Fate:
    if passage.score < least:
        return Fate.BELOW_MIN_SCORE
    return Fate.READ if rank <= asked.top_k else Fate.BEYOND_TOP_K


def _cosines(
    asked: Asked, vector: Vector, ids: Sequence[UUID], answering: Answering
) -> dict[UUID, float]:
    """Exact cosines of the sentence encoder; none where the dense index does not answer."""
    try:
        return answering.dense.scores(asked.collection_id, vector, ids)
    except IndexUnavailable:
        return {}


def _latent_scores(
    question: str, ids: Sequence[UUID], found: _Found, answering: Answering
) -> dict[UUID, float]:
    """Cosine with the question's latents, of every passage."""

    def run() -> dict[UUID, float]:
        query = answering.models.reasoner.encode([question])[0]
        scores = answering.models.score(query, [found.latents[id_] for id_ in ids])
        return dict(zip(ids, scores.tolist(), strict=True))

    return answering.engine.submit(run, urgent=True).result()
