from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.evaluation.rouge import (
    facts_kept,
    longest_common,
    names,
    names_kept,
    numbers,
    numbers_kept,
    rouge_l,
    rouge_n,
)

words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=9)
texts = words.map(" ".join)


def slow_common(one: Sequence[str], other: Sequence[str]) -> int:
    @cache
    def best(i: int, j: int) -> int:
        if i == len(one) or j == len(other):
            return 0
        if one[i] == other[j]:
            return 1 + best(i + 1, j + 1)
        return max(best(i + 1, j), best(i, j + 1))

    return best(0, 0)


@given(words, words)
def test_the_longest_common_sequence_is_that_of_the_definition(
    one: list[str], other: list[str]
) -> None:
    assert longest_common(one, other) == slow_common(one, other) == longest_common(other, one)


@given(texts, texts)
def test_rouge_is_a_share_and_the_same_both_ways(one: str, other: str) -> None:
    found = [rouge_n(one, other, 1), rouge_n(one, other, 2), rouge_l(one, other)]
    assert found == [rouge_n(other, one, 1), rouge_n(other, one, 2), rouge_l(other, one)]
    assert all(0 <= value <= 1 for value in found)
    assert found[2] <= found[0] + 1e-12  # a common sequence is a common bag


@given(words.filter(lambda found: len(found) > 1))
def test_the_same_words_have_full_marks_and_their_reverse_the_same_bag(found: list[str]) -> None:
    text, backwards = " ".join(found), " ".join(reversed(found))
    assert rouge_n(text, text.upper() + "!", 2) == rouge_l(text, text) == 1
    assert rouge_n(text, backwards, 1) == 1


def test_rouge_of_a_known_pair() -> None:
    found, wanted = "the cat sat on the mat", "the cat lay on a mat"
    assert rouge_n(found, wanted, 1) == pytest.approx(2 * 4 / 12)
    assert rouge_n(found, wanted, 2) == pytest.approx(2 * 1 / 10)
    assert rouge_l(found, wanted) == pytest.approx(2 * 4 / 12)
    assert rouge_n("", wanted, 1) == rouge_l(found, "") == rouge_n("cat", "cat", 2) == 0


def test_numbers_are_compared_without_commas() -> None:
    assert numbers("In 1874, 1,204 ships and 3.5 t; 12.") == {"1874", "1204", "3.5", "12"}
    assert numbers_kept("1204 of them", "1,204 ships in 1874") == 0.5
    assert numbers_kept("any", "none") is None


def test_names_are_capitals_inside_a_sentence() -> None:
    text = "Harbour wall\nThe wall was built by Margaret Osgood's firm. Later I saw The Times."
    assert names(text) == {"Margaret", "Osgood", "Times"}
    assert names("1874 Margaret came.") == {"Margaret"}
    assert names_kept("Osgood built it. Margaret too.", text) == pytest.approx(2 / 3)
    assert names_kept("Osgoods", "by Osgood") == 0
    assert names_kept("any", "no name here") is None


def test_facts_are_numbers_and_names_counted_together() -> None:
    text = "It was built in 1874 by the engineer Margaret Osgood."
    assert facts_kept("Osgood, 1874", text) == pytest.approx(2 / 3)
    assert facts_kept("", text) == 0
    assert facts_kept("1874", "no fact here") is None
