from __future__ import annotations

from random import Random

import torch

from clara.answerability.examples import ROOM, Answered, Example, answered, examples, weighted
from clara.training.changed import Vocabulary
from clara.training.narrowed import Additions
from clara.training.records import CompressionRecord, QuestionRecord

PASSAGE = "Ghent\nThe shop in Ghent opened in 1998. It is closed on Monday. Anna keeps it."
OTHER = "Vienna\nThe opera stands in the middle of the town."
NO_WORDS = Vocabulary(("Monday", "Friday"), torch.tensor([[1.0, 0.0], [0.9, 0.1]]))
ADDED = Additions(("in winter",), ())
ASKED = Answered("When did the shop in Ghent open?", "1998", [PASSAGE], [OTHER])


def drawn(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - nothing secret


def made(one: Answered, words: Vocabulary = NO_WORDS, rounds: int = 40) -> set[Example]:
    return {ex for seed in range(rounds) for ex in examples(one, words, ADDED, drawn(seed))}


def test_a_question_comes_with_what_answers_it_and_with_what_nearly_does() -> None:
    found = made(ASKED)
    assert Example(ASKED.question, PASSAGE, True, "1998") in found
    assert Example(ASKED.question, OTHER, False) in found
    without = "Ghent\nIt is closed on Monday. Anna keeps it."
    assert Example(ASKED.question, without, False) in found
    assert Example("When did the shop in Ghent open in winter?", PASSAGE, False) in found
    mixed = "When did the shop in Ghent open in the middle of the town?"
    beside = {one.passage for one in found if one.question == mixed}
    assert beside == {f"{PASSAGE}\n{OTHER}", f"{OTHER}\n{PASSAGE}"}


def test_a_question_is_changed_in_a_word_that_its_passage_has() -> None:
    one = Answered("Who keeps it on Monday?", "Anna", [PASSAGE], [])
    assert Example("Who keeps it on Friday?", PASSAGE, False) in made(one)


def test_every_passage_said_to_answer_holds_the_answer() -> None:
    right = [example for example in made(ASKED) if example.answers]
    assert len(right) > 1
    assert all("1998" in example.passage for example in right)


def test_an_answer_in_other_words_has_no_place_and_nothing_is_taken_out_for_it() -> None:
    one = Answered("Is it ever closed?", "one day a week", [PASSAGE], [])
    found = made(one)
    assert Example(one.question, PASSAGE, True, "") in found
    assert {example.passage for example in found} == {PASSAGE}


def test_passages_stand_now_and_then_among_others_in_any_order() -> None:
    found = {example.passage for example in made(ASKED) if example.answers}
    assert {PASSAGE, f"{PASSAGE}\n{OTHER}", f"{OTHER}\n{PASSAGE}"} <= found


def test_what_passages_answer_together_is_answered_by_all_of_them_alone() -> None:
    one = Answered("Is it older than the opera?", "yes", [PASSAGE, OTHER], [])
    right = {example.passage for example in made(one) if example.answers}
    assert right == {f"{PASSAGE}\n{OTHER}", f"{OTHER}\n{PASSAGE}"}
    assert {PASSAGE, OTHER} <= {example.passage for example in made(one) if not example.answers}


def test_of_several_passages_one_without_the_answer_does_not_answer() -> None:
    one = Answered("In which year did the shop of Anna open?", "1998", [OTHER, PASSAGE], [])
    found = made(one)
    assert all("1998" in example.passage for example in found if example.answers)
    assert Example(one.question, OTHER, False) in found
    assert Example(one.question, PASSAGE, False) not in found
    thinner = [one for one in found if one.answers and "closed" not in one.passage]
    assert all("opera" in example.passage for example in thinner)
    assert thinner


def test_of_several_passages_the_answer_is_taken_out_wherever_it_stands() -> None:
    again = "Anna\nAnna has had a shop since 1998. She likes it."
    one = Answered("When did she open it?", "1998", [PASSAGE, again], [])
    less = [example.passage for example in made(one) if "1998" not in example.passage]
    assert less
    assert all("She likes it." in passage and "Anna keeps it." in passage for passage in less)


def test_what_is_too_long_to_be_read_as_one_gives_nothing_and_gets_no_company() -> None:
    long = "Ghent\n" + "The shop opened in 1998. " * (ROOM // 20)
    assert made(Answered("When?", "1998", [long, PASSAGE], [])) == set()
    assert {one.passage for one in made(Answered("When?", "1998", [long], [OTHER]))} >= {long}
    assert all(
        OTHER not in one.passage
        for one in made(Answered("When?", "1998", [long], [OTHER]))
        if one.answers
    )


def test_what_takes_several_passages_is_asked_more_often() -> None:
    several = Answered("Is it older than the opera?", "yes", [PASSAGE, OTHER], [])
    assert weighted([ASKED, several, ASKED]) == [ASKED, several, several, several, ASKED]


def record(question: str, positives: tuple[int, ...] = (0,)) -> QuestionRecord:
    return QuestionRecord("1", "shop", question, (PASSAGE, OTHER), "1998", positives)


def told(*questions: str, document: str = PASSAGE) -> CompressionRecord:
    return CompressionRecord("1", "shop", "qa", document, tuple((q, "1998") for q in questions), "")


def test_every_question_is_taken_once_and_none_that_is_held_out() -> None:
    found = answered(
        [record("When?"), record("When?"), record("Secret?"), record("Unknown?", ())],
        [told("When?", "Which year?", "Secret?")],
        held_out={"Secret?"},
    )
    assert [one.question for one in found] == ["When?", "Which year?"]
    assert (found[0].right, found[0].others) == ([PASSAGE], [OTHER])


def test_what_has_no_candidates_gets_those_of_its_source_that_share_most_words() -> None:
    far = [told("a", document=f"Text {number} of nothing.") for number in range(5)]
    near = told("b", document="When the shop moved, it took a year.")
    found = answered([], [told("In which year did the shop open?"), near, *far])
    assert found[0].others[0] == near.document
    assert len(found[0].others) == 3
    assert PASSAGE not in found[0].others
