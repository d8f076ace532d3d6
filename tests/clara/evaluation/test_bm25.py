from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.evaluation.bm25 import Bm25

PASSAGES = ["the wall of the harbour", "a wall", "tea from Canton, and Tea again"]


def test_a_score_is_the_sum_over_the_questions_words() -> None:
    bm25 = Bm25.of(PASSAGES)
    assert (bm25.passages, bm25.mean_words) == (3, 13 / 3)
    rarity = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    length = 1.2 * (1 - 0.75 + 0.75 * 2 / (13 / 3))
    assert bm25.scores("Wall?", PASSAGES)[1] == pytest.approx(rarity * 2.2 / (1 + length))
    tea = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    length = 1.2 * (1 - 0.75 + 0.75 * 6 / (13 / 3))
    assert bm25.scores("TEA", PASSAGES) == pytest.approx([0, 0, tea * 2 * 2.2 / (2 + length)])


def test_a_passage_that_occurs_twice_counts_once() -> None:
    assert Bm25.of([*PASSAGES, *PASSAGES]) == Bm25.of(PASSAGES)


def test_a_word_rare_in_the_file_decides_among_candidates_that_share_another() -> None:
    background = [f"harbour number {i}" for i in range(50)]
    candidates = ["harbour harbour harbour", "Osgood harbour"]
    assert Bm25.of(background + candidates).scores("harbour of Osgood", candidates)[1] > 2
    assert Bm25.of(background + candidates).scores("harbour", candidates)[0] < 0.2


words = st.lists(st.sampled_from("abcde"), max_size=8).map(" ".join)


@given(st.lists(words, min_size=1, max_size=6), words)
def test_scores_are_positive_exactly_where_a_word_is_shared(
    passages: list[str], question: str
) -> None:
    for passage, found in zip(passages, Bm25.of(passages).scores(question, passages), strict=True):
        assert (found > 0) == bool(set(passage.split()) & set(question.split()))


def test_nothing_known_is_no_error() -> None:
    found = Bm25.of([]).scores("wall", ["a wall", ""])
    assert found == pytest.approx([math.log(2) * 2.2 / 3.1, 0])
