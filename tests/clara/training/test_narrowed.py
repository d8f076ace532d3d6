from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.evidence import words_of, worth
from clara.training.narrowed import Additions, additions, mixed, narrowed

COAT = "The harbour coat\nThe coat costs 149 euros and is made of waxed cotton."
BOOTS = "Boots\nThey are worn in winter, come with a leather sole, and are made for children."
FOUND = Additions(conditions=("in winter", "for Anna"), attributes=("student", "written"))


def drawn(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - nothing secret


@pytest.mark.parametrize(
    ("question", "conditions", "attributes"),
    [
        ("Who led the written talks in 1928?", ("in 1928",), ("written",)),
        ("Where was she in the year after the war?", ("after the war",), ()),
        ("who sang in the movie about", (), ()),
        ("What is it for?", (), ()),
        ("What was said in the document?", (), ()),
        ("What did he do in the town he was born?", (), ()),
        ("What is the main harbour?", (), ()),
        ("What is the highly priced harbour?", (), ()),
    ],
)
def test_questions_give_what_others_can_be_narrowed_with(
    question: str, conditions: tuple[str, ...], attributes: tuple[str, ...]
) -> None:
    assert additions([question]) == Additions(conditions, attributes)


def test_a_question_without_its_mark_gives_no_condition() -> None:
    assert additions(["who led the written talks in 1928"]).conditions == ()


def test_a_condition_comes_before_the_mark_and_an_attribute_before_a_thing() -> None:
    found = {narrowed("How much is the coat?", [COAT], FOUND, drawn(seed)) for seed in range(30)}
    assert found == {
        "How much is the coat in winter?",
        "How much is the coat for Anna?",
        "How much is the student coat?",
        "How much is the written coat?",
    }


def test_a_question_in_small_letters_stays_in_small_letters() -> None:
    only = Additions(("for Anna",), ())
    assert narrowed("how much is it", [COAT], only, drawn(0)) == "how much is it for anna"


def test_what_the_documents_speak_of_is_no_addition() -> None:
    told = Additions(("in waxed cotton",), ("harbour",))
    assert narrowed("How much is the coat?", [COAT], told, drawn(0)) is None


def test_nothing_to_add_narrows_nothing() -> None:
    assert narrowed("How much is the coat?", [COAT], Additions((), ()), drawn(0)) is None


@given(
    question=st.text(max_size=60),
    document=st.text(max_size=60),
    extra=st.lists(st.text(min_size=1, max_size=20), max_size=4),
    seed=st.integers(),
)
def test_what_is_added_is_new_and_nothing_is_taken_away(
    question: str, document: str, extra: list[str], seed: int
) -> None:
    found = narrowed(question, [document], Additions(tuple(extra), tuple(extra)), drawn(seed))
    if found is None:
        return
    new = words_of(found) - words_of(question)
    assert not {word for word in new if worth(word) >= 1} & words_of(document)
    kept = "".join(found.casefold().split())
    asked = iter("".join(question.rstrip(" ?").casefold().split()))
    rest = iter(kept)
    assert all(any(letter == other for other in rest) for letter in asked)


def test_what_a_passage_says_of_something_else_is_asked_of_this() -> None:
    found = {mixed("How much is the coat?", [COAT], [BOOTS], drawn(seed)) for seed in range(40)}
    assert found == {
        ("How much is the coat in winter?", BOOTS),
        ("How much is the coat with a leather sole?", BOOTS),
        ("How much is the coat for children?", BOOTS),
        ("How much is the leather coat?", BOOTS),
    }


def test_a_passage_that_shares_most_words_of_a_question_may_answer_it() -> None:
    near = "The coat is worn in winter."
    assert mixed("How warm is the coat?", [COAT], [near], drawn(0)) is not None
    assert mixed("Is the coat worn?", [COAT], [near], drawn(0)) is None


def test_nothing_is_mixed_without_other_passages() -> None:
    assert mixed("How much is the coat?", [COAT], [], drawn(0)) is None


@given(
    question=st.text(max_size=60),
    document=st.text(max_size=60),
    others=st.lists(st.text(max_size=60).map(lambda text: f"It is {text} in winter."), max_size=3),
    seed=st.integers(),
)
def test_what_is_mixed_in_stands_in_the_other_passage_alone(
    question: str, document: str, others: list[str], seed: int
) -> None:
    found = mixed(question, [document], others, drawn(seed))
    if found is None:
        return
    new = {word for word in words_of(found[0]) - words_of(question) if worth(word) >= 1}
    assert found[1] in others
    assert new
    assert not new & words_of(document)
