"""Where sentences begin and end: for cutting documents, and for pointing at evidence.

First the lines: a blank line, a heading, a list item or a line that stopped short of the margin
ends a sentence whatever its last character is. Then, within each block of running text, every
mark that may end a sentence is judged by what stands around it. Each step is one pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from clara.types import Span


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _words(
    """a about above after again against all also although am among an and another any are as at
    be because been before being below between both but by could did do does doing during each
    either ever every few for from had has have having he her here hers him his how however i if
    in instead into is it its many meanwhile me moreover most much my neither never no nor not now
    of off on once one only or other our out over own same several she should since so some such
    than that the their them then there therefore these they this those though through thus to
    today together too under until up upon us very was we were what when where whether which while
    who whom whose why with without would yet you your"""
)
"""English words that hold a sentence together: likely to start one, unlikely to end a line."""

TITLES = _words(
    """mr mrs ms mx dr prof rev fr gen col maj capt cmdr cpt lt sgt adm gov sen rep hon pres supt
    insp messrs mme mlle msgr e.g eg i.e ie cf viz vs"""
)
"""Before their full stop a sentence never ends, in any case of letters."""

NUMBERED = _words(
    """no nos nr p pp vol vols fig figs eq eqs sec sect ch chap art op ref refs tab ex ca c v b d
    approx para lines"""
)
"""Abbreviations before a number; without one the full stop counts as usual."""

SHORTENED = _words(
    """Inc inc Ltd ltd Corp corp Co Bros Jr Sr St Ste Ave Blvd Rd Sq Mt Ft Pt Dept dept Univ univ
    Assn assn Inst Div Est est approx Fig Figs fig figs Eq Eqs Vol Sec Sect Ref Refs al ed eds
    trans Ph.D PhD Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mon Tue Tues Wed Thu Thur
    Thurs Fri"""
)
"""Abbreviations that may also end a sentence: they do where a function word follows."""

AFTER_HOUR = re.compile(r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|[A-Z]{1,2}[SD]?T|GMT|UTC")
"""What may follow "p.m." in the same sentence with a capital."""

FULL_WIDTH = "。！？｡．।॥።"
"""Marks that end a sentence without white space after them."""
STOPS = ".!?…‽⁇⁈⁉‼؟۔։။" + FULL_WIDTH
OPENERS = "\"'“”„‘‚«‹»›(\\[{「『【（《〈¿¡*_"
CLOSERS = "\"'”’“«‹»›)\\]}」』】）》〉*_⁰¹²³⁴-⁹"
NEWLINES = "\n\r\v\f\x85\u2028\u2029"

LINE = re.compile(rf"\S(?:[^{NEWLINES}]*\S)?")
NEWLINE = re.compile(rf"\r\n|[{NEWLINES}]")
TITLE_LINE = re.compile(r"#{1,6}\s|\||[=\-_*~`]{3,}\Z")
NEW_LINE_ITEM = re.compile(
    r"(?:[-*+•‣◦▪●·]|\d{1,3}[.)]|[a-z][.)]|[A-Z]\)|\((?:\d{1,3}|[a-zA-Z]|[ivx]{2,4})\)|#{1,6}|>)\s"
    r"|\||[=\-_*~`]{3,}\Z"
)
FIRST_WORD = re.compile(rf"[{OPENERS}]*(\S)\S*")
LAST_WORD = re.compile(r"\w+\Z")
LEAST_WIDTH = 40
"""Characters; nobody wraps prose at fewer, so shorter lines say nothing about a margin."""

END = re.compile(
    rf"([{STOPS}]+)[{CLOSERS}]*(?:\[\d{{1,4}}\][{CLOSERS}]*)*(?:[ \u00a0\u202f][»›](?=\s|\Z))?"
)
AHEAD = re.compile(rf"(\s*)([{OPENERS}]*)(\w{{1,16}}|.?)", re.DOTALL)
DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]\Z")
ROMAN = re.compile(r"[IVXLC]+\Z")
LOOK_BACK = 24
"""Characters before a full stop in which an abbreviation is looked for."""


def sentences(text: str) -> list[Span]:
    """Sentences in order, without white space around them, sharing every other character out.

    Made for English prose; marks of other scripts are known. Time grows linearly with the text.
    """
    return [span for start, end in _blocks(text) for span in _within(text, start, end)]


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Stretches of running text: lines that belong together."""
    paragraph: list[tuple[int, int]] = []
    for match in LINE.finditer(text):
        line = match.span()
        if paragraph and has_blank_line(text, paragraph[-1][1], line[0]):
            yield from _joined(text, paragraph)
            paragraph = []
        paragraph.append(line)
    if paragraph:
        yield from _joined(text, paragraph)


def has_blank_line(text: str, start: int, end: int) -> bool:
    """Whether the white space `[start, end)` holds an empty line or a paragraph separator."""
    breaks = NEWLINE.findall(text, start, end)
    return len(breaks) > 1 or "\u2029" in breaks


def _joined(text: str, lines: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join the lines of a paragraph that a margin cut, leaving the others apart."""
    width = max(end - start for start, end in lines)
    begin = lines[0][0]
    for line, after in pairwise(lines):
        if _are_apart(text, line, after, width):
            yield begin, line[1]
            begin = after[0]
    yield begin, lines[-1][1]


def _are_apart(text: str, line: tuple[int, int], after: tuple[int, int], width: int) -> bool:
    """Whether the newline between two lines was meant, not forced by the margin at `width`.

    A greedy wrap breaks only where the next word no longer fits. Before a capital that is
    evidence enough; before a digit or a letter without case, the line must be half empty.
    """
    if NEW_LINE_ITEM.match(text, *after) or TITLE_LINE.match(text, *line):
        return True
    last = text[line[1] - 1]
    if last in STOPS or last in ",;-–—/&(，、；":
        return False
    length = line[1] - line[0]
    first = FIRST_WORD.match(text, *after)
    letter = first[1] if first else ""
    if first is None or not letter.isupper():
        return not letter.islower() and length * 2 < width
    word = LAST_WORD.search(text, max(line[0], line[1] - LOOK_BACK), line[1])
    joins = word is not None and word[0].lower() in FUNCTION_WORDS
    return not joins and length + 1 + len(first[0]) <= max(width, LEAST_WIDTH)


def _within(text: str, start: int, end: int) -> Iterator[Span]:
    """Sentences of one block, which begins and ends with a character that is not a space."""
    cased = text[start:end] != text[start:end].lower()
    begin = start
    for mark in END.finditer(text, start, end):
        if mark.end() == end:
            break
        ahead = AHEAD.match(text, mark.end(), end)
        if ahead is not None and _is_end(text, begin, mark, ahead, cased=cased):
            yield Span(begin, mark.end())
            begin = ahead.end(1)
    yield Span(begin, end)


def _is_end(
    text: str, begin: int, mark: re.Match[str], ahead: re.Match[str], *, cased: bool
) -> bool:
    """Whether the sentence from `begin` ends at `mark`, before what lies ahead."""
    gap, _, word = ahead.groups()
    marks, last, following = mark[1], mark[1][-1], word[:1]
    if last in FULL_WIDTH:
        quoted = mark.end() > mark.end(1) and following in "とってのをがはにで"
        return not (quoted or following in "，、") and not (last == "．" and following.isdigit())
    if not gap:
        return last in "!?" and _is_unspaced(following)
    if not following or following in ",;:)]}" or following in STOPS:
        return False
    if cased and following.islower():
        return False
    if last != "." or len(marks) > 1:
        return True
    return not _is_abbreviation(text, begin, mark.start(), ahead)


def _is_abbreviation(text: str, begin: int, stop: int, ahead: re.Match[str]) -> bool:
    """Whether the full stop at `stop` belongs to an abbreviation, an initial or a label."""
    before = text[max(begin, stop - LOOK_BACK) : stop]
    if before[-1:].isspace():
        return False
    token = (before.split() or [""])[-1].lstrip(OPENERS + "-–—/")
    small = token.lower()
    _, opener, word = ahead.groups()
    starter = word.lower() in FUNCTION_WORDS and text[ahead.end() : ahead.end() + 1] != "."
    number = word[:1].isdigit()
    if small in TITLES or (number and (small in NUMBERED or (small == "al" and opener))):
        return True
    if small in ("a.m", "p.m"):
        return AFTER_HOUR.match(word) is not None
    if stop - len(token) == begin and (token.replace(".", "").isdigit() or ROMAN.match(token)):
        return True
    initial = len(token) == 1 and token.isupper()
    return not starter and bool(initial or token in SHORTENED or DOTTED.match(token))


def _is_unspaced(letter: str) -> bool:
    """Whether a letter is of Chinese or Japanese, written without spaces."""
    return "\u3040" <= letter <= "\u9fff" or "\U00020000" <= letter <= "\U0003ffff"
