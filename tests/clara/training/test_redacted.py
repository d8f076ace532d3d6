"""Documents that lose the sentences which hold the answer, for the generator to refuse."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.errors import InvalidTraining
from clara.training.config import InstructionConfig, from_dict
from clara.training.instruction import given as asked
from clara.training.records import QuestionRecord
from clara.training.redacted import redacted, thinned
from clara.wording import NOT_IN_DOCUMENTS

COAT = "Coat\nThe coat is of wool. It costs 149 EUR. It comes in green.\nOnly in May: 149 EUR!"
HAT = "Hat\nThe hat is of felt. It costs 20 EUR."


def test_every_sentence_with_the_answer_goes_and_the_others_stay_as_they_are() -> None:
    found = redacted("What does the coat cost?", [COAT, HAT], "149 eur")
    assert found == ["Coat\nThe coat is of wool. It comes in green.", HAT]


def test_a_document_without_a_title_loses_sentences_too() -> None:
    text = "A coat is of wool. It costs 149 EUR."
    assert redacted("What does it cost?", [text], "149 EUR") == ["A coat is of wool."]


@pytest.mark.parametrize(
    ("question", "documents", "answer"),
    [
        ("Is it of wool?", [COAT], "yes"),
        ("What costs 149 EUR?", [COAT], "Coat"),
        ("Which is dearer, hat or coat?", [COAT, HAT], "the hat"),
        ("What does it cost?", [HAT], "149 EUR"),
        ("What does it cost?", [HAT], "2"),
        ("What does it cost?", ["Coat\nIt costs 149 EUR.", HAT], "149 EUR"),
        ("What does it cost?", ["It costs 149 EUR.", HAT], "149 EUR"),
    ],
    ids=[
        "said nowhere",
        "in the title",
        "in the question",
        "in no document",
        "within a number",
        "nothing left but a title",
        "nothing left",
    ],
)
def test_what_cannot_be_taken_out_is_left(question: str, documents: list[str], answer: str) -> None:
    assert redacted(question, documents, answer) is None


@given(
    st.lists(st.sampled_from(["It rains.", "It costs 7 EUR.", "A hat is a hat."]), max_size=6),
    st.sampled_from([" ", "\n", "  "]),
)
def test_no_word_is_left_of_the_answer_and_none_is_new(lines: list[str], gap: str) -> None:
    text = gap.join(["A title.", *lines])
    found = redacted("How much?", [text], "7 EUR")
    if found:
        assert "7 EUR" not in found[0]
        assert found[0].split() == text.replace("It costs 7 EUR.", "").split()
    else:
        assert "7 EUR" not in text or not set(lines) - {"It costs 7 EUR."}


def test_refused_questions_are_redacted_changed_or_left_without_documents() -> None:
    record = QuestionRecord(
        "q", "", "What does the coat cost?", (COAT, HAT, "Tie"), "149 EUR", (0,)
    )
    mixture = InstructionConfig(refusal_share=0.5, redacted_share=0.5, fewest_documents=2)
    seen = set()
    for seed in range(200):
        one = asked(record, mixture, Random(seed))  # noqa: S311
        whole, part = COAT in one.documents, any(d.startswith("Coat") for d in one.documents)
        assert (one.answer == NOT_IN_DOCUMENTS) is not whole
        assert one.question == record.question
        assert "149 EUR" not in "".join(one.documents) or whole
        seen.add((whole, part))
    assert seen == {(True, True), (False, True), (False, False)}


def test_where_nothing_can_be_taken_out_the_documents_go() -> None:
    record = QuestionRecord("q", "", "Is it of wool?", (COAT, HAT), "yes", (0,))
    mixture = InstructionConfig(refusal_share=0.9, redacted_share=1)
    said = [asked(record, mixture, Random(seed)) for seed in range(50)]  # noqa: S311
    refused = [one for one in said if one.answer == NOT_IN_DOCUMENTS]
    assert refused
    assert all(tuple(one.documents) == (HAT,) for one in refused)


def test_shares_of_the_same_questions_are_at_most_all_of_them() -> None:
    with pytest.raises(InvalidTraining, match=r"changed_share 0\.7 and redacted_share 0\.4"):
        from_dict({"stage": 2, "changed_share": 0.7, "redacted_share": 0.4})


SHOP = "Ghent\nThe shop in Ghent opened in 1998. It is closed on Monday. Anna keeps it."


@pytest.mark.parametrize("seed", range(5))
def test_thinning_spares_the_answer(seed: int) -> None:
    shorter = thinned(SHOP, "Monday", Random(seed))  # noqa: S311
    assert shorter is not None
    assert "closed on Monday" in shorter
    assert len(shorter) < len(SHOP)


def test_nothing_is_thinned_that_has_one_sentence_or_no_answer() -> None:
    assert thinned("Ghent\nIt is closed on Monday.", "Monday", Random(0)) is None  # noqa: S311
    assert thinned(SHOP, "Tuesday", Random(0)) is None  # noqa: S311
    assert thinned(SHOP, "", Random(0)) is None  # noqa: S311
