"""Lexical and dense hits into one ranking."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from clara.errors import IndexUnavailable
from clara.retrieval.ports import DenseIndex, LexicalIndex
from clara.types import Candidate, Fusion, Hit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEXICAL = "lexical"
DENSE = "dense"

FUSION_K = 3
"""Of 1, 3, 10 and the usual 60: on training questions 1 and 3 ranked alike and best. The milder
one, so that no single first rank decides (BENCHMARKS.md, fusion)."""


AHEAD = (8, 40)
"""Times the limit that is looked at for passages of a scope, before all of them are asked for."""


MOST_AHEAD = 10_000
"""Hits an engine gives at once."""


class Scope(Protocol):
    """Passages that may be found."""

    def admits(self, passages: Sequence[UUID]) -> Collection[UUID]:
        """Those of some passages that may."""
        ...

    def members(self) -> Collection[UUID]:
        """All that may."""
        ...


def union(lexical: Sequence[Hit], dense: Sequence[Hit], *, limit: int) -> list[Candidate]:
    """Every passage that either search returned, by its better rank.

    Of the two passages that share a rank, one that both searches returned comes first, then the
    lexical one. Nothing depends on the scores, whose units differ.

    Args:
        lexical: best first.
        dense: best first.
        limit: the longest list returned.
    """
    return sorted(_merge(lexical, dense), key=_by_better_rank)[:limit]


def rrf(
    lexical: Sequence[Hit], dense: Sequence[Hit], *, limit: int, k: int = 60
) -> list[Candidate]:
    """The same passages by reciprocal rank fusion: the sum of 1 / (k + rank).

    A passage both searches return rises above the best of one search alone; `k` from Cormack,
    Clarke and Buettcher (SIGIR 2009).
    """

    def key(candidate: Candidate) -> tuple[float, tuple[int, int, bool]]:
        return -sum(1 / (k + rank) for rank in _ranks(candidate)), _by_better_rank(candidate)

    return sorted(_merge(lexical, dense), key=key)[:limit]


def fuse(
    candidates: Sequence[Candidate],
    cosines: Mapping[UUID, float],
    latents: Mapping[UUID, float] | None = None,
    *,
    weight: float = 1.0,
    k: int = FUSION_K,
) -> dict[UUID, float]:
    """One score in [0, 1] per candidate from its ranks; 1 is first by every voice.

    The lexical rank is the search's own. The dense one is among all candidates, by exact cosine,
    so a passage that only the lexical search found has one too; that of latents likewise. A missing
    rank adds nothing.

    Args:
        candidates: from one question.
        cosines: of dense vectors, by passage, of as many as are known.
        latents: cosines of latents; None where they have no voice.
        weight: of the latents' voice, where words and dense vectors have 1 each.
        k: smaller trusts the first ranks more.
    """
    words = {one.passage_id: one.lexical_rank for one in candidates if one.lexical_rank is not None}
    voices = [(1.0, words), (1.0, _ranked(cosines))]
    if latents is not None:
        voices.append((weight, _ranked(latents)))
    total = sum(each for each, _ in voices)

    def score(passage: UUID) -> float:
        said = ((each, ranks[passage]) for each, ranks in voices if passage in ranks)
        return sum(each * (k + 1) / (k + rank) for each, rank in said) / total

    return {candidate.passage_id: score(candidate.passage_id) for candidate in candidates}


def _ranked(scores: Mapping[UUID, float]) -> dict[UUID, int]:
    """Ranks from 1 by falling score; of equal ones the first is before the others."""
    best = sorted(scores, key=lambda passage: -scores[passage])
    return {passage: rank for rank, passage in enumerate(best, start=1)}


FUSIONS = {Fusion.UNION: union, Fusion.RRF: rrf}


def search(
    lexical: LexicalIndex,
    dense: DenseIndex,
    collection: UUID,
    text: str,
    vector: NDArray[np.float32],
    *,
    lexical_limit: int,
    dense_limit: int,
    pool: Executor,
    scope: Scope | None = None,
    fusion: Fusion = Fusion.UNION,
) -> tuple[list[Candidate], list[str]]:
    """Ask both indexes at once and merge what comes back.

    Args:
        vector: the question's unit vector (dimension,).
        pool: where the two searches run; never the pool the caller itself runs in, which could
            fill up with callers waiting for each other.
        scope: what may be found; each limit counts passages of it.
    Returns:
        all candidates, and the names of the retrievers that did not answer.
    Raises:
        IndexUnavailable: neither answers.
    """
    by_words = partial(lexical.search, collection, text)
    by_vector = partial(dense.search, collection, vector)
    asked = {
        LEXICAL: pool.submit(within, by_words, scope, limit=lexical_limit, exact=True),
        DENSE: pool.submit(within, by_vector, scope, limit=dense_limit, exact=False),
    }
    hits: dict[str, list[Hit]] = {}
    failed: dict[str, IndexUnavailable] = {}
    for name, answer in asked.items():
        try:
            hits[name] = answer.result()
        except IndexUnavailable as error:
            failed[name] = error
        except BaseException:
            _cancel(asked.values())
            raise
    if len(failed) == len(asked):
        raise IndexUnavailable(
            "neither index answers: " + "; ".join(error.message for error in failed.values()),
            remedy=failed[LEXICAL].remedy,
        ) from failed[LEXICAL]
    found_lexical, found_dense = hits.get(LEXICAL, []), hits.get(DENSE, [])
    limit = len(found_lexical) + len(found_dense)
    return FUSIONS[fusion](found_lexical, found_dense, limit=limit), list(failed)


def within(
    find: Callable[..., list[Hit]], scope: Scope | None, *, limit: int, exact: bool
) -> list[Hit]:
    """The best `limit` hits of a scope, as if the index held nothing else.

    The first of a longer ranking are looked at, which is enough where much is in the scope. Where
    little is, its passages are few: they are asked for by id.

    Args:
        find: a search that takes `limit` and `only`.
        scope: None for everything.
        exact: whether a search that finds fewer than it may has found everything there is.
    """
    if scope is None:
        return find(limit=limit)
    for times in AHEAD:
        looked_at = min(limit * times, MOST_AHEAD)
        hits = find(limit=looked_at)
        admitted = scope.admits([hit.passage_id for hit in hits])
        kept = [hit for hit in hits if hit.passage_id in admitted][:limit]
        if len(kept) == limit or (exact and len(hits) < looked_at):
            return kept
    return find(limit=limit, only=scope.members())


def _cancel(answers: Iterable[Future[list[Hit]]]) -> None:
    for answer in answers:
        answer.cancel()


def _merge(lexical: Sequence[Hit], dense: Sequence[Hit]) -> list[Candidate]:
    found: dict[UUID, Candidate] = {}
    for rank, hit in enumerate(lexical, start=1):
        found[hit.passage_id] = Candidate(hit.passage_id, lexical=hit.score, lexical_rank=rank)
    for rank, hit in enumerate(dense, start=1):
        known = found.get(hit.passage_id, Candidate(hit.passage_id))
        found[hit.passage_id] = replace(known, dense=hit.score, dense_rank=rank)
    return list(found.values())


def _ranks(candidate: Candidate) -> list[int]:
    return [rank for rank in (candidate.lexical_rank, candidate.dense_rank) if rank is not None]


def _by_better_rank(candidate: Candidate) -> tuple[int, int, bool]:
    ranks = _ranks(candidate)
    return min(ranks), -len(ranks), candidate.lexical_rank != min(ranks)
