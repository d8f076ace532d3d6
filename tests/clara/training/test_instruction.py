from __future__ import annotations

from random import Random

from hypothesis import given as drawn
from hypothesis import strategies as st

from clara.training.config import InstructionConfig
from clara.training.instruction import given
from clara.training.records import QuestionRecord
from clara.wording import NOT_IN_DOCUMENTS

DOCUMENTS = tuple("abcdefg")
SEEDS = st.integers(0, 10_000)


def record(*positives: int) -> QuestionRecord:
    return QuestionRecord("q", "", "Who?", DOCUMENTS, "Osgood", positives)


@drawn(seed=SEEDS)
def test_unless_asked_for_the_first_documents_are_read_and_answered(seed: int) -> None:
    found = given(record(1), InstructionConfig(), Random(seed))  # noqa: S311
    assert (tuple(found.documents), found.answer) == (DOCUMENTS[:5], "Osgood")


@drawn(seed=SEEDS, positives=st.sets(st.integers(0, 4), min_size=1, max_size=4))
def test_an_answer_has_all_its_positives_and_a_refusal_none(seed: int, positives: set[int]) -> None:
    config = InstructionConfig(fewest_documents=2, refusal_share=0.5)
    found = given(record(*positives), config, Random(seed))  # noqa: S311
    held = {DOCUMENTS[at] for at in positives} & set(found.documents)
    assert len(held) == (0 if found.answer == NOT_IN_DOCUMENTS else len(positives))
    assert list(found.documents) == sorted(found.documents)
    assert 1 <= len(found.documents) <= 5


def test_both_happen_in_about_the_share_that_was_asked_for() -> None:
    config = InstructionConfig(fewest_documents=3, refusal_share=0.3)
    said = [given(record(2), config, Random(seed)).answer for seed in range(400)]  # noqa: S311
    assert 0.2 < said.count(NOT_IN_DOCUMENTS) / len(said) < 0.4


@drawn(seed=SEEDS)
def test_a_question_whose_positives_are_unknown_or_are_all_is_never_refused(seed: int) -> None:
    config = InstructionConfig(fewest_documents=2, refusal_share=0.9)
    for one in (record(), record(6), record(0, 1, 2, 3, 4)):
        found = given(one, config, Random(seed))  # noqa: S311
        assert (tuple(found.documents), found.answer) == (DOCUMENTS[:5], "Osgood")


def test_the_number_of_documents_varies_down_to_the_fewest() -> None:
    config = InstructionConfig(fewest_documents=3)
    drawn = [given(record(2), config, Random(seed)) for seed in range(100)]  # noqa: S311
    counts = {len(found.documents) for found in drawn}
    assert counts == {3, 4, 5}
