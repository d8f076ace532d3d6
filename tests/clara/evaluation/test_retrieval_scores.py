from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.evaluation.retrieval_scores import CUTS, DEPTH, ndcg, reciprocal_rank, scores, summary

A, B, C, D, X = (UUID(int=n) for n in range(5))
MANY = [UUID(int=n) for n in range(100, 140)]


def test_a_ranking_is_scored_as_by_hand() -> None:
    # 2 at the second rank and 1 at the fourth; best were 2, 1, 1 at the first three
    gained = 2 / 1.584962500721156 + 1 / 2.321928094887362
    most = 2 / 1 + 1 / 1.584962500721156 + 1 / 2
    found = scores([A, B, C, D], {B: 2.0, D: 1.0, X: 1.0})
    assert found == {
        "recall@1": 0.0,
        "recall@3": pytest.approx(1 / 3),
        "recall@5": pytest.approx(2 / 3),
        "recall@25": pytest.approx(2 / 3),
        "recall@37": pytest.approx(2 / 3),
        "mrr@10": 0.5,
        "ndcg@10": pytest.approx(gained / most),
    }
    assert found["ndcg@10"] == pytest.approx(1.692537 / 3.130930, abs=1e-6)


def test_a_perfect_ranking_has_1_everywhere_and_none_has_0() -> None:
    assert set(scores([B, A], {B: 3.0}).values()) == {1.0}
    assert set(scores([], {B: 3.0}).values()) == {0.0}
    assert set(scores([A, C], {B: 3.0}).values()) == {0.0}


def test_a_better_answer_first_is_worth_more_in_ndcg_alone() -> None:
    grades = {A: 3.0, B: 1.0}
    good, bad = scores([A, B], grades), scores([B, A], grades)
    assert good["ndcg@10"] == 1.0
    assert bad["ndcg@10"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert bad["mrr@10"] == good["mrr@10"] == 1.0


def test_what_comes_after_the_tenth_rank_counts_for_recall_alone() -> None:
    found = scores([*MANY[:DEPTH], A], {A: 1.0})
    assert (found["mrr@10"], found["ndcg@10"]) == (0.0, 0.0)
    assert (found["recall@5"], found["recall@25"]) == (0.0, 1.0)
    assert scores([*MANY[: DEPTH - 1], A], {A: 1.0})["mrr@10"] == pytest.approx(1 / DEPTH)


def test_a_grade_of_0_or_less_is_no_answer() -> None:
    found = scores([A, B, C], {A: 0.0, B: -1.0, C: 1.0})
    assert found["recall@1"] == 0.0
    assert found["recall@3"] == 1.0
    assert found["mrr@10"] == pytest.approx(1 / 3)
    assert found["ndcg@10"] == pytest.approx(0.5)


def slow_ndcg(ranking: Sequence[UUID], grades: Mapping[UUID, float], k: int) -> float:
    """The most any order of the judged passages could have gained is found by trying all."""

    def gained(order: Sequence[UUID]) -> float:
        total = 0.0
        for rank in range(1, k + 1):
            if rank <= len(order):
                gain = max(0.0, grades.get(order[rank - 1], 0.0))
                total += gain * math.log(2) / math.log(rank + 1)
        return total

    most = max(gained(order) for order in permutations(grades))
    return 0.0 if most == 0 else gained(ranking) / most


@given(
    ranking=st.permutations(MANY[:8]).flatmap(
        lambda order: st.integers(0, 8).map(lambda length: order[:length])
    ),
    grades=st.dictionaries(
        st.sampled_from(MANY[:10]), st.integers(-1, 3).map(float), min_size=1, max_size=5
    ),
    k=st.integers(1, 9),
)
def test_a_slow_second_way_finds_the_same(
    ranking: list[UUID], grades: dict[UUID, float], k: int
) -> None:
    assert ndcg(ranking, grades, k) == pytest.approx(slow_ndcg(ranking, grades, k))
    gold = {passage for passage, grade in grades.items() if grade > 0}
    ranks = [ranking.index(one) + 1 for one in gold if one in ranking]
    first = min(ranks, default=k + 1)
    assert reciprocal_rank(ranking, gold, k) == pytest.approx(1 / first if first <= k else 0.0)
    if gold:
        found = scores(ranking, grades)
        for cut in CUTS:
            hits = sum(rank <= cut for rank in ranks)
            assert found[f"recall@{cut}"] == pytest.approx(hits / len(gold))


def test_a_summary_is_the_means_with_their_intervals() -> None:
    rows = [scores([A], {A: 1.0}), scores([B, A], {A: 1.0}), scores([], {A: 1.0})]
    found = summary(rows)
    assert found["n"] == 3
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert found["mrr@10"] == pytest.approx(0.5)
    low, high = found["intervals"]["recall@5"]
    assert 0 <= low < found["recall@5"] < high <= 1
    assert summary(rows) == found
    assert summary([]) == {"n": 0, "intervals": {}}
