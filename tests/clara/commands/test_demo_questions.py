from __future__ import annotations

from pathlib import Path

import pytest

from clara.commands.demo_questions import Question, Tally, read
from clara.wording import NOT_IN_DOCUMENTS, NOTHING_FOUND

SAMPLES = Path(__file__).parents[3] / "samples" / "questions.jsonl"
PRICE = Question("How much is it?", ("149 EUR", "149 euros"))
NO_ANSWER = Question("Who?", ())


def test_the_samples_are_read_with_their_answers() -> None:
    found = read(SAMPLES)
    assert len(found) == 30
    assert sum(not question.answers for question in found) == 4
    assert found[1].answers[0] == "149 EUR"


@pytest.mark.parametrize(
    ("question", "answer", "right"),
    [
        (PRICE, "The raincoat costs 149 EUR.", True),
        (PRICE, "149 euros", True),
        (PRICE, "It costs 419 EUR.", False),
        (PRICE, NOT_IN_DOCUMENTS, False),
        (NO_ANSWER, NOT_IN_DOCUMENTS, True),
        (NO_ANSWER, NOTHING_FOUND, True),
        (NO_ANSWER, "Margaret Osgood", False),
    ],
)
def test_an_answer_is_right_if_it_holds_a_gold_one_or_refuses_where_there_is_none(
    question: Question, answer: str, right: bool
) -> None:
    tally = Tally()
    assert tally.add(question, answer) is right
    assert tally.right + tally.refused == right
    assert tally.answerable + tally.unanswerable == 1


def test_a_tally_is_told_in_one_sentence() -> None:
    tally = Tally(answerable=26, right=20, unanswerable=4, refused=3)
    assert str(tally) == ("20 of 26 questions answered right, 3 of 4 unanswerable ones refused")
