from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.nearness import is_near, shared

QUESTION = "Which brush cleans the SKU-1234 boot?"
HOLDS_ALL = "Cleaning a boot: the brush for the SKU-1234 is made of horsehair."


def test_one_near_passage_is_enough() -> None:
    assert is_near(QUESTION, ["Tea came from Canton.", "Bees dance."], [0.1, 0.5], 0.5)


def test_where_all_vectors_are_far_and_words_differ_nothing_is_near() -> None:
    assert not is_near(QUESTION, ["Tea came from Canton.", "A boot."], [0.1, 0.49], 0.5)


def test_a_passage_that_has_the_words_of_the_question_is_near_whatever_its_vector() -> None:
    assert is_near(QUESTION, ["Tea came from Canton.", HOLDS_ALL], [0.1, 0.2], 0.5)


def test_without_vectors_nothing_is_too_far() -> None:
    assert is_near(QUESTION, ["Tea came from Canton."], [], 1.0)


def test_words_without_content_say_nothing_about_a_passage() -> None:
    assert shared("What is the price of it?", "It is what the market is for.") < 0.2


def test_a_question_without_words_shares_nothing() -> None:
    assert shared("?!", "Tea.") == shared("", "") == 0.0


@given(question=st.text(), passage=st.text(), more=st.text())
def test_a_share_is_a_share_and_grows_with_the_passage(
    question: str, passage: str, more: str
) -> None:
    share = shared(question, passage)
    assert 0 <= share <= 1
    assert shared(question, f"{passage}\n{more}") >= share - 1e-12


@pytest.mark.parametrize("text", ["Tea came from Canton.", "Ein Satz", "茶"])
def test_a_text_shares_all_its_words_with_itself(text: str) -> None:
    assert shared(text, text) == pytest.approx(1.0)
