"""Where sentences end, and the law that no character gets lost."""

from __future__ import annotations

import re
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clara.sentences import sentences

PIECES = ["Mr. ", "e.g. ", "J. K. ", "3.5", "Word ", "word ", ". ", "... ", "?! ", ".” ", "(", ") "]
PIECES += ["\n", "\n\n", "\r\n", "\u2029", "\u00a0", "- ", "1. ", "# ", "。", "」", "「", "字", "é"]


def cut(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentences(text)]


@pytest.mark.parametrize(
    "parted",
    [
        "It rained.| Nobody came.",
        "Is it late?| Go home!| Now.",
        "Mr. Smith met Dr. Brown and Mrs. Jones.| They talked.",
        "Use a list, e.g. this one, i.e. the first.| Then stop.",
        "No. 5 is alive.| See Nos. 7 and 8.| No.| He said no.| Then he left.",
        "J. K. Rowling wrote it.| George W. Bush read it.| E. I. du Pont did not.",
        "Pi is 3.5 here and 3.14 there.| 20 people agree.",
        "The cost is $5.00.| Visit www.example.com.| Then read a.b.c today.",
        "He left at 5 p.m. on Friday.| She left at 6 p.m.| John stayed.| At 7 p.m. Monday he ran.",
        "The U.S. President spoke.| He lives in the U.S.| The weather is fine.",
        "Apple Inc. is big.| He works at Apple Inc.| The firm is old.",
        "See Fig. 3 and vol. 2.| Smith et al. (2010) agree.| So do others, etc.| Then it ends.",
        "It was World War I.| The end came late.| Queen Elizabeth II.| She reigned.",
        "He was born on Jan. 5, 1920, on St. John St. in London.| It snowed.",
        "Wait ... what?| Well...| Then he left.| I . . . went.",
        "“Is it?” he said.| “Yes.”| She left.| “Stop!” he cried.",
        "(He left.)| [She stayed.]| 'Both.'| **Bold.**| _Italic._| Plain.",
        "It works.[3]| Next one.[4][5]| “Quoted.”¹²| Last.",
        "What?!| No!!| Ok.",
        "1. Introduction of a thing.| IV. Results of it.| The end.",
        "hello there.| how are you?| i am fine.",
        "Tokenised text .| Like this .",
        "Bonjour !| « Oui. »| Il part.| Er ging.| »Hallo.«| Dann kam sie.",
        "我去了。|你呢？|他说：“好。”|然后走了。|真的?|不知道!|好",
        "「行く。」と言った。|終わり。|円周率は３．１４です。",
        "यह एक है।| दूसरा है।| هل هذا صحيح؟| نعم.",
    ],
)
def test_prose_is_cut_after_its_sentences(parted: str) -> None:
    assert cut(parted.replace("|", "")) == [part.strip() for part in parted.split("|")]


@pytest.mark.parametrize(
    "parted",
    [
        "Introduction\n|The system is made of parts.",
        "A heading\n\n|and a paragraph\n \t\n|and one more",
        "# Title\n|of lower case\n|## Next\n|body",
        "Title\n|=====\n|body",
        "- one\n|- two\n  goes on\n|- Three\n|1. four\n|2) five\n|(a) six\n|• seven",
        "Name: John\n|Age: 12\n|City: Paris",
        "| a | b |\n|---|---|\n| c | d |",
        "windows\r\nline ends\r\n\r\n|are one newline",
        "old\u2029|separators",
        "The cat sat\non the mat.| It purred.",
        "The Great War ended in the autumn of 1918 with the armies of the\n"
        "United States in France.| It was signed by Mr.\nWilson himself.",
        "序論\n|本論文では新しい方法を示す。|結果は良い\nことがわかった。",
    ],
)
def test_lines_end_a_sentence_only_where_they_were_meant_to(parted: str) -> None:
    if parted.startswith("| a"):
        assert cut(parted) == parted.split("\n")
        return
    assert cut(parted.replace("|", "")) == [part.strip() for part in parted.split("|")]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u3000\u2028\x1c\t"])
def test_white_space_has_no_sentences(text: str) -> None:
    assert sentences(text) == []


def test_positions_count_code_points() -> None:
    text = "😀 e\u0301t. 👩‍👧 Fin."
    assert cut(text) == ["😀 e\u0301t.", "👩‍👧 Fin."]


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
@example("".join(map(chr, range(sys.maxunicode + 1))))
@settings(deadline=None, max_examples=200)
def test_every_visible_character_is_in_exactly_one_sentence(text: str) -> None:
    done = 0
    for span in sentences(text):
        assert span.start < span.end
        assert not text[done : span.start].strip()
        assert text[span.start : span.end] == text[span.start : span.end].strip()
        done = span.end
    assert not text[done:].strip()


@pytest.mark.parametrize(
    "pattern", [".", ". ", ".\n", "A. ", "a\n", "A b\n", " ", '."', ".[1]", "字。", "「。」と", "x"]
)
def test_time_grows_with_length_and_not_with_its_square(pattern: str) -> None:
    text = pattern * (100_000 // len(pattern)) + "x"
    begun = time.process_time()
    sentences(text)
    assert time.process_time() - begun < 5  # a tenth of a second; squared, minutes


def test_text_of_only_marks_is_kept() -> None:
    assert re.sub(r"\s", "", "".join(cut('?! " . ) ... ( 。 」'))) == '?!".)...(。」'
