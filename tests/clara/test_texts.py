from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clara.errors import EmptyText, InvalidInput, InvalidText, TextTooLong
from clara.texts import check_text, clean_text, printable

any_text = st.text(st.characters(exclude_categories=()))
"""Also control characters and halves of surrogate pairs."""


def storable(character: str) -> bool:
    return character in "\t\n\r" or unicodedata.category(character) not in {"Cc", "Cs"}


@given(any_text)
@example("\u2028 a \ufeff")
@example("\x1c")
def test_a_text_comes_back_exactly_as_given_or_is_refused(text: str) -> None:
    fine = len(text) <= 20 and all(map(storable, text)) and text.strip() != ""
    if fine:
        assert check_text(text, field="text", max_chars=20) is text
        return
    with pytest.raises(InvalidInput) as error:
        check_text(text, field="text", max_chars=20)
    assert error.value.field == "text"
    assert error.value.remedy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ab\x00c", "/text has the control character U+0000 at position 2, counted from 0"),
        ("\x1b[1m", "/text has the control character U+001B at position 0, counted from 0"),
        ("\x85", "/text has the control character U+0085 at position 0, counted from 0"),
        ("a\ud83d", "/text has half of a surrogate pair U+D83D at position 1, counted from 0"),
    ],
)
def test_a_refused_character_is_named_with_its_position(text: str, words: str) -> None:
    with pytest.raises(InvalidText) as refused:
        check_text(text, field="/text", max_chars=10)
    assert refused.value.message == words
    assert "Remove" in (refused.value.remedy or "")


def test_the_limit_itself_is_allowed_and_one_more_is_not() -> None:
    assert check_text("a" * 1000, field="text", max_chars=1000)
    with pytest.raises(TextTooLong, match="text has 1,001 characters; the limit is 1,000") as error:
        check_text("a" * 1001, field="text", max_chars=1000)
    assert error.value.limit == 1000


@pytest.mark.parametrize("text", ["", " \t\r\n", "\u00a0\u3000"])
def test_a_text_of_white_space_says_nothing(text: str) -> None:
    with pytest.raises(EmptyText):
        check_text(text, field="text", max_chars=10)


def test_two_million_characters_are_checked_in_no_time() -> None:
    text = "Straße и 東京 \U0001f600\n" * 160_000
    begun = time.perf_counter()
    check_text(text, field="text", max_chars=len(text))
    assert time.perf_counter() - begun < 1


@given(any_text)
def test_a_cleaned_text_can_be_stored_and_keeps_all_other_characters(text: str) -> None:
    cleaned = clean_text(text)
    assert all(map(storable, cleaned))
    assert "\r" not in cleaned
    assert clean_text(cleaned) == cleaned
    if all(map(storable, text)):
        assert cleaned == text.replace("\r\n", "\n").replace("\r", "\n")


def test_line_ends_of_every_kind_become_newlines() -> None:
    assert clean_text("a\r\nb\rc\fd\ve\x85f\n\rg") == "a\nb\nc\nd\ne\nf\n\ng"


def test_pairs_of_surrogates_become_their_character_and_halves_go() -> None:
    assert clean_text("a\ud83d\ude00b\ud83dc\ude00") == "a\U0001f600bc"


def test_nothing_is_normalised() -> None:
    assert clean_text("e\u0301 \u00e9 \ufb01") == "e\u0301 \u00e9 \ufb01"


def test_a_name_is_made_printable_without_losing_what_was_wrong_with_it() -> None:
    assert printable("a\x00b\udcffé") == "a\\x00b\\udcffé"
