from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.errors import IndexMismatch, IndexUnavailable
from clara.retrieval.hybrid import AHEAD, MOST_AHEAD, fuse, rrf, search, union, within
from clara.types import Candidate, Fusion, Hit

IDS = [UUID(int=n) for n in range(1, 40)]
VECTOR = np.ones(2, dtype=np.float32)


def hits(*numbers: int) -> list[Hit]:
    """Best first, with falling scores."""
    return [Hit(IDS[n], 1 / rank) for rank, n in enumerate(numbers, start=1)]


some_hits = st.lists(st.integers(0, len(IDS) - 1), unique=True).map(lambda n: hits(*n))


def order(candidates: list[Candidate]) -> list[int]:
    return [IDS.index(candidate.passage_id) for candidate in candidates]


def test_the_two_lists_are_interleaved_by_rank() -> None:
    assert order(union(hits(0, 1, 2), hits(3, 4), limit=50)) == [0, 3, 1, 4, 2]


def test_a_passage_of_both_lists_comes_once_at_its_better_rank() -> None:
    assert order(union(hits(0, 1, 2), hits(2, 3), limit=50)) == [2, 0, 1, 3]


def test_a_candidate_says_who_found_it_and_where() -> None:
    both, only = union(hits(1, 0), hits(1), limit=50)
    assert both == Candidate(IDS[1], lexical=1, lexical_rank=1, dense=1, dense_rank=1)
    assert only == Candidate(IDS[0], lexical=0.5, lexical_rank=2)


def test_reciprocal_rank_fusion_prefers_what_both_found() -> None:
    assert order(union(hits(0, 2), hits(1, 2), limit=9)) == [0, 1, 2]
    assert order(rrf(hits(0, 2), hits(1, 2), limit=9)) == [2, 0, 1]


@pytest.mark.parametrize("merge", [union, rrf])
@given(lexical=some_hits, dense=some_hits, limit=st.integers(0, 50))
def test_every_passage_comes_at_most_once_and_none_is_lost(
    merge: Callable[..., list[Candidate]], lexical: list[Hit], dense: list[Hit], limit: int
) -> None:
    merged = merge(lexical, dense, limit=limit)
    ids = [candidate.passage_id for candidate in merged]
    everything = {hit.passage_id for hit in [*lexical, *dense]}
    assert len(ids) == len(set(ids)) == min(limit, len(everything))
    assert set(ids) <= everything
    assert merged == merge(lexical, dense, limit=limit)
    for candidate in merged:
        assert candidate.lexical_rank is not None or candidate.dense_rank is not None
        for rank, score, source in (
            (candidate.lexical_rank, candidate.lexical, lexical),
            (candidate.dense_rank, candidate.dense, dense),
        ):
            if rank is not None:
                assert source[rank - 1] == Hit(candidate.passage_id, score or 0)


@given(lexical=some_hits, dense=some_hits)
def test_a_shorter_limit_gives_the_start_of_the_longer_list(
    lexical: list[Hit], dense: list[Hit]
) -> None:
    for merge in (union, rrf):
        assert merge(lexical, dense, limit=5) == merge(lexical, dense, limit=50)[:5]


@given(found=some_hits)
def test_one_list_alone_keeps_its_order(found: list[Hit]) -> None:
    ids = [hit.passage_id for hit in found]
    for merge in (union, rrf):
        for merged in (merge(found, [], limit=50), merge([], found, limit=50)):
            assert [candidate.passage_id for candidate in merged] == ids


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def asked(
    lexical: Callable[..., list[Hit]], dense: Callable[..., list[Hit]], pool: ThreadPoolExecutor
) -> tuple[list[Candidate], list[str]]:
    one: Any = SimpleNamespace(search=lexical)
    two: Any = SimpleNamespace(search=dense)
    return search(one, two, uuid4(), "bees", VECTOR, lexical_limit=25, dense_limit=12, pool=pool)


def finds(*numbers: int) -> Callable[..., list[Hit]]:
    return lambda _collection, _question, *, limit: hits(*numbers)[:limit]


def fails(error: Exception) -> Callable[..., list[Hit]]:
    def raising(*_: object, **__: object) -> list[Hit]:
        raise error

    return raising


def test_both_indexes_are_asked_at_once_each_with_its_limit(pool: ThreadPoolExecutor) -> None:
    together = Barrier(2, timeout=5)

    def found(_collection: UUID, _question: object, *, limit: int) -> list[Hit]:
        together.wait()
        return hits(*range(39))[:limit]

    candidates, degraded = asked(found, found, pool)
    assert degraded == []
    assert sum(candidate.lexical is not None for candidate in candidates) == 25
    assert sum(candidate.dense is not None for candidate in candidates) == 12


def test_an_index_that_is_away_is_left_out_and_named(pool: ThreadPoolExecutor) -> None:
    away = fails(IndexUnavailable("gone"))
    candidates, degraded = asked(away, finds(3, 4), pool)
    assert (order(candidates), degraded) == ([3, 4], ["lexical"])
    candidates, degraded = asked(finds(3, 4), away, pool)
    assert (order(candidates), degraded) == ([3, 4], ["dense"])


def test_without_any_index_there_is_an_error_with_both_reasons(pool: ThreadPoolExecutor) -> None:
    one = IndexUnavailable("cluster gone", remedy="Start it.")
    with pytest.raises(IndexUnavailable, match=r"cluster gone; database gone\. Start it"):
        asked(fails(one), fails(IndexUnavailable("database gone")), pool)


def test_another_error_is_not_hidden(pool: ThreadPoolExecutor) -> None:
    with pytest.raises(IndexMismatch, match="by hand"):
        asked(fails(IndexMismatch("changed by hand")), finds(1), pool)


def test_the_merge_asked_for_is_used(pool: ThreadPoolExecutor) -> None:
    one: Any = SimpleNamespace(search=finds(0, 2))
    two: Any = SimpleNamespace(search=finds(1, 2))
    limits = {"lexical_limit": 25, "dense_limit": 12}
    for fusion, expected in ((Fusion.UNION, [0, 1, 2]), (Fusion.RRF, [2, 0, 1])):
        found, _ = search(one, two, uuid4(), "bees", VECTOR, **limits, pool=pool, fusion=fusion)
        assert order(found) == expected


class Ranking:
    """A search over a ranking of its own, and what it was asked."""

    def __init__(self, ranking: list[UUID]) -> None:
        self.ranking = ranking
        self.asked: list[int | str] = []

    def __call__(self, *, limit: int, only: Collection[UUID] | None = None) -> list[Hit]:
        self.asked.append(limit if only is None else "only")
        ids = self.ranking if only is None else [id_ for id_ in self.ranking if id_ in only]
        return [Hit(id_, -rank) for rank, id_ in enumerate(ids)][:limit]


class Some:
    """A scope of given passages."""

    def __init__(self, passages: Collection[UUID]) -> None:
        self.passages = set(passages)

    def admits(self, passages: Sequence[UUID]) -> set[UUID]:
        return self.passages & set(passages)

    def members(self) -> set[UUID]:
        return self.passages


LONG = [UUID(int=n) for n in range(300)]


@given(
    scope=st.one_of(
        st.sets(st.sampled_from(LONG)),
        st.sets(st.sampled_from(LONG)).map(lambda few: set(LONG) - few),
    ),
    limit=st.integers(1, 8),
    exact=st.booleans(),
)
def test_a_scope_gives_what_is_left_of_the_whole_ranking(
    scope: set[UUID], limit: int, exact: bool
) -> None:
    found = within(Ranking(LONG), Some(scope), limit=limit, exact=exact)
    assert [hit.passage_id for hit in found] == [id_ for id_ in LONG if id_ in scope][:limit]


def test_without_a_scope_a_search_is_asked_once() -> None:
    ranking = Ranking(LONG)
    within(ranking, None, limit=3, exact=True)
    assert ranking.asked == [3]


def test_a_wide_scope_is_found_by_looking_further_a_narrow_one_by_its_ids() -> None:
    wide, narrow = Ranking(LONG), Ranking(LONG)
    within(wide, Some(LONG[::3]), limit=3, exact=True)
    assert wide.asked == [3 * AHEAD[0]]
    assert len(within(narrow, Some(LONG[-2:]), limit=3, exact=False)) == 2
    assert narrow.asked == [3 * AHEAD[0], 3 * AHEAD[1], "only"]


def test_a_search_that_has_given_everything_is_not_asked_again_unless_it_is_inexact() -> None:
    exact, inexact = Ranking(LONG[:5]), Ranking(LONG[:5])
    assert within(exact, Some(LONG[6:]), limit=3, exact=True) == []
    assert exact.asked == [3 * AHEAD[0]]
    assert within(inexact, Some(LONG[6:]), limit=3, exact=False) == []
    assert inexact.asked[-1] == "only"


def test_no_more_is_looked_at_than_an_engine_gives() -> None:
    ranking = Ranking(LONG)
    within(ranking, Some([]), limit=1_000, exact=False)
    assert [asked for asked in ranking.asked if asked != "only"] == [8_000, MOST_AHEAD]


def _candidate(lexical_rank: int | None = None) -> Candidate:
    return Candidate(uuid4(), lexical_rank=lexical_rank)


def test_first_by_both_ranks_scores_one_and_last_by_none_scores_nothing() -> None:
    best, lost = _candidate(1), _candidate()
    fused = fuse([lost, best], {best.passage_id: 0.9})
    assert fused == {best.passage_id: 1.0, lost.passage_id: 0.0}


def test_a_passage_only_the_words_found_can_stay_on_top() -> None:
    """What an exact name or number finds must survive an encoder that does not know it."""
    named = _candidate(1)
    others = [_candidate() for _ in range(9)]
    cosines = {one.passage_id: 0.5 - i / 100 for i, one in enumerate([*others, named])}
    fused = fuse([*others, named], cosines)
    assert max(fused, key=lambda passage: fused[passage]) == named.passage_id


def test_latents_speak_with_their_weight_beside_words_and_vectors() -> None:
    words, vectors, latent = _candidate(1), _candidate(2), _candidate(3)
    ids = [one.passage_id for one in (words, vectors, latent)]
    cosines = dict(zip(ids, (0.1, 0.9, 0.2), strict=True))
    latents = dict(zip(ids, (0.3, 0.1, 0.9), strict=True))
    light = fuse([words, vectors, latent], cosines, latents, weight=0.5, k=0)
    # ranks (words, vectors, latents): (1, 3, 2), (2, 1, 3), (3, 2, 1)
    assert light[ids[0]] == pytest.approx((1 + 1 / 3 + 0.5 / 2) / 2.5)
    assert light[ids[1]] == pytest.approx((1 / 2 + 1 + 0.5 / 3) / 2.5)
    assert light[ids[2]] == pytest.approx((1 / 3 + 1 / 2 + 0.5) / 2.5)
    heavy = fuse([words, vectors, latent], cosines, latents, weight=50.0)
    assert max(heavy, key=lambda passage: heavy[passage]) == ids[2]
    assert fuse([words, vectors, latent], cosines, {}, weight=50.0)[ids[0]] < 0.05


@given(
    st.lists(st.one_of(st.none(), st.integers(1, 50)), max_size=12),
    st.lists(st.floats(-1, 1), min_size=12, max_size=12),
    st.floats(0.01, 100),
)
def test_no_voice_raised_ever_lowers_a_score_and_none_leaves_the_bounds(
    ranks: list[int | None], scores: list[float], weight: float
) -> None:
    candidates = [_candidate(rank) for rank in ranks]
    latents = {c.passage_id: s for c, s in zip(candidates, scores, strict=False)}
    before = fuse(candidates, {}, latents, weight=weight)
    for candidate in candidates:
        more = latents | {candidate.passage_id: 2.0}
        raised = fuse(candidates, {}, more, weight=weight)
        assert 0 <= before[candidate.passage_id] <= raised[candidate.passage_id] <= 1 + 1e-12


@given(
    st.lists(st.one_of(st.none(), st.integers(1, 50)), max_size=12),
    st.lists(st.floats(-1, 1), min_size=12, max_size=12),
)
def test_a_better_cosine_never_lowers_a_fused_score(
    ranks: list[int | None], scores: list[float]
) -> None:
    candidates = [_candidate(rank) for rank in ranks]
    cosines = {c.passage_id: s for c, s in zip(candidates, scores, strict=False)}
    before = fuse(candidates, cosines)
    for candidate in candidates:
        raised = fuse(candidates, cosines | {candidate.passage_id: 2.0})
        assert 0 <= before[candidate.passage_id] <= raised[candidate.passage_id] <= 1
