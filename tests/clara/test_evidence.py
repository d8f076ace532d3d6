"""Evidence: the sentence a reader would point at, and none where nothing speaks for the answer."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara.evidence import content_of, find_evidence
from clara.sentences import sentences

PASSAGE = (
    "The treaty was signed in Paris in 1815. Paris is the capital of France. "
    "It has 2,102,650 inhabitants. The Seine runs through the city. Dr. Hall measured 3.5 metres."
)


def found(answer: str, question: str, passage: str = PASSAGE) -> str | None:
    span = find_evidence(passage, answer, question)
    return passage[span.start : span.end] if span else None


def test_the_sentence_that_holds_the_answer_is_the_evidence() -> None:
    assert found("the seine", "What runs there?") == "The Seine runs through the city."


def test_the_question_decides_among_sentences_that_hold_the_answer() -> None:
    assert found("Paris", "What is the capital of France?") == "Paris is the capital of France."
    assert found("Paris", "Where was it signed?") == "The treaty was signed in Paris in 1815."


def test_the_earliest_of_equals_is_chosen() -> None:
    assert found("Paris", "") == "The treaty was signed in Paris in 1815."


def test_case_quotes_full_stops_and_line_breaks_do_not_hide_an_answer() -> None:
    assert found('"capital OF france."', "") == "Paris is the capital of France."
    assert found("mill", "", "It was red. See _Mill_ there.") == "See _Mill_ there."
    assert found("old mill", "", "He saw the old\nmill. It was red.") == "He saw the old\nmill."


@pytest.mark.parametrize("part", ["815", "3", "5", "102", "102,650", "Par", "ear"])
def test_a_part_of_a_word_or_number_is_not_the_answer(part: str) -> None:
    assert found(part, "", "In 1815 it had 2,102,650 people, Paris, 3.5 metres early.") is None


def test_a_number_at_the_end_of_a_sentence_is_whole() -> None:
    assert found("7", "", "Six came. There were 7. Then more.") == "There were 7."


def test_an_answer_over_several_sentences_gives_them_all() -> None:
    assert found("in 1815. Paris is the capital", "") == PASSAGE[: PASSAGE.index(" It has")]


def test_rare_words_and_numbers_outweigh_common_ones() -> None:
    passage = "The river is long. The river is old. The river of 1903 was dry. The river is wide."
    assert found("a dry river since 1903", "How old is the river?", passage) == (
        "The river of 1903 was dry."
    )


def test_another_form_of_a_word_or_number_counts() -> None:
    assert found("2102650 people", "How many inhabitants?") == "It has 2,102,650 inhabitants."
    assert found("the signing", "What about treaties?") == "The treaty was signed in Paris in 1815."


def test_an_answer_of_yes_is_judged_by_the_question() -> None:
    passage = "No fish was seen. The Seine runs through Paris. Yes is a word."
    assert found("yes", "Does the Seine run through Paris?", passage) == (
        "The Seine runs through Paris."
    )
    assert found("No.", "Do whales sing at night?", passage) is None


@pytest.mark.parametrize(
    ("answer", "question"),
    [("bananas", "Which fruit is yellow?"), ("", ""), ("...", "?"), ("it was the", "what is it")],
)
def test_nothing_in_common_is_no_evidence(answer: str, question: str) -> None:
    assert found(answer, question) is None


def test_one_word_of_many_is_too_little() -> None:
    question = "Which explorer sailed around Africa towards India, carrying letters and spices?"
    assert found("Vasco da Gama, leaving Lisbon, not France", question) is None


def test_chinese_and_japanese_are_compared_by_character() -> None:
    assert found("东京", "首都是哪里？", "日本是岛国。首都是东京。富士山很高。") == "首都是东京。"
    assert found("富士山", "高い山は？", "京都は古い。富士山は高い。") == "富士山は高い。"


@given(st.text(), st.text(), st.text())
@settings(deadline=None)
def test_evidence_is_always_whole_sentences(passage: str, answer: str, question: str) -> None:
    span = find_evidence(passage, answer, question)
    if span is not None:
        whole = sentences(passage)
        assert span.start in {sentence.start for sentence in whole}
        assert span.end in {sentence.end for sentence in whole}


WORDS = st.lists(st.sampled_from(["river", "town", "1903", "hall", "bridge"]), min_size=1)


@given(st.lists(WORDS, min_size=1), st.data())
@settings(deadline=None)
def test_an_answer_copied_from_the_passage_is_found(
    written: list[list[str]], data: st.DataObject
) -> None:
    passage = " ".join(f"{' '.join(words).capitalize()}." for words in written)
    answer = " ".join(data.draw(st.sampled_from(written)))
    evidence = found(answer, "", passage)
    assert evidence is not None
    assert answer in evidence.lower()


def test_the_order_of_hashes_changes_nothing() -> None:
    code = (
        "from clara.evidence import find_evidence\n"
        f"print(find_evidence({PASSAGE!r}, 'metres of water', 'Which city has a river?'))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(seen) == 1


def test_words_with_content_are_all_but_those_that_stand_anywhere() -> None:
    assert content_of("What is the colour of the signs in 1,234?") == {"colour", "sign", "1234"}
    assert content_of("Where is it?") == frozenset()
