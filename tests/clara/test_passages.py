"""Passages: nothing lost, none over the limit when tokenised alone, ends where a reader expects."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from clara import passages
from clara.errors import InvalidCheckpoint, ModelMissing
from clara.passages import FastTokenizer, TokenCounter, split
from clara.sentences import sentences
from clara.types import PassageSpan

PROSE = (
    "The river rose in spring, and the town watched it. Nobody slept; the bridge shook all night. "
    "In the morning Dr. Hall counted 3.5 metres at the old mark. It fell again by noon.\n\n"
)
PIECES = ["The river rose. ", "Nobody slept; ", "and, so ", "Dr. ", "3.5 ", "\n", "\n\n", "x" * 60]
PIECES += [
    "字は読む。",
    "我们去了",
    "👩‍👩‍👧",
    "🇫🇷🇩🇪",
    "e\u0301",
    "h\u0300\u0301\u0302",
    "한국어 ",
    "<|end|>",
    " ",
]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


class Words:
    """Every run of visible characters is a token."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]


class Prefixed:
    """As some tokenizers do, spends two more tokens where a text begins."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [(0, 0), (0, 0), *Words().offsets(text)] if text else []


class Shy:
    """Spends three tokens on a character in company and one on a character alone."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [(i, i + 1) for i in range(len(text)) for _ in range(1 if len(text) == 1 else 3)]


class Counting:
    """Remembers how much another tokenizer was given."""

    def __init__(self, inner: TokenCounter) -> None:
        self.inner = inner
        self.characters = 0

    def offsets(self, text: str) -> list[tuple[int, int]]:
        self.characters += len(text)
        return self.inner.offsets(text)


def train_bpe() -> Tokenizer:
    """A byte-level BPE: an unseen character takes a token for each of its bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROSE], trainer)
    return tokenizer


BPE = FastTokenizer(train_bpe())
TOKENIZERS = st.sampled_from([BPE, Words()])


def texts(text: str, found: list[PassageSpan]) -> list[str]:
    return [text[passage.start : passage.end] for passage in found]


def check(text: str, tokenizer: TokenCounter, max_tokens: int) -> list[PassageSpan]:
    """Split and hold the result to the laws."""
    found = split(text, tokenizer, max_tokens=max_tokens)
    done = 0
    for passage in found:
        own = text[passage.start : passage.end]
        assert done <= passage.start < passage.end
        assert not text[done : passage.start].strip()
        assert own == own.strip()
        assert passage.tokens == len(tokenizer.offsets(own)) <= max_tokens
        done = passage.end
    assert not text[done:].strip()
    return found


@given(TEXTS, st.integers(4, 40), TOKENIZERS)
@settings(deadline=None, max_examples=250)
def test_passages_cover_any_text_in_order_and_keep_to_the_limit_alone(
    text: str, max_tokens: int, tokenizer: TokenCounter
) -> None:
    check(text, tokenizer, max_tokens)


@given(TEXTS, st.integers(1, 3))
@settings(deadline=None)
def test_a_character_over_the_limit_is_refused_and_nothing_else_is(
    text: str, max_tokens: int
) -> None:
    if any(BPE.count(letter) > max_tokens for letter in text if letter.strip()):
        with pytest.raises(ValueError, match="alone takes more"):
            split(text, BPE, max_tokens=max_tokens)
    else:
        check(text, BPE, max_tokens)


@given(TEXTS, st.integers(4, 40))
@settings(deadline=None, max_examples=200)
def test_a_sentence_that_fits_alone_is_never_cut(text: str, max_tokens: int) -> None:
    ends = {passage.end for passage in split(text, BPE, max_tokens=max_tokens)}
    for sentence in sentences(text):
        if BPE.count(text[sentence.start : sentence.end]) <= max_tokens:
            assert not ends & set(range(sentence.start + 1, sentence.end))


@given(st.lists(st.sampled_from(PIECES[:7]), max_size=60).map("".join), st.integers(3, 20))
@settings(deadline=None)
def test_the_limit_holds_for_a_tokenizer_that_spends_more_on_a_text_alone(
    text: str, max_tokens: int
) -> None:
    check(text, Prefixed(), max_tokens)


@given(TEXTS, st.integers(4, 40))
@settings(deadline=None)
def test_planning_in_several_stretches_changes_no_law(text: str, max_tokens: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passages, "STRETCH", 20)
        check(text, BPE, max_tokens)


@pytest.mark.parametrize("text", ["", " \n\t ", "\u3000\n\n"])
def test_white_space_gives_no_passage(text: str) -> None:
    assert split(text, BPE, max_tokens=8) == []


def test_a_short_text_is_one_passage_with_its_exact_length() -> None:
    found = split("  The river rose.\n", BPE, max_tokens=256)
    assert found == [PassageSpan(2, 17, BPE.count("The river rose."))]


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_a_limit_below_one_is_refused(max_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"max_tokens is {max_tokens}; a passage needs at least 1"):
        split("text", BPE, max_tokens=max_tokens)


def test_a_character_that_fits_only_alone_stands_alone() -> None:
    assert texts("ab c", check("ab c", Shy(), 1)) == ["a", "b", "c"]


def test_a_character_over_the_limit_is_named() -> None:
    with pytest.raises(ValueError, match="max_tokens is 2; the character '字' alone takes more"):
        split("a 字 b", BPE, max_tokens=2)


@pytest.mark.parametrize("count", range(11, 60))
def test_passages_are_about_equally_long(count: int) -> None:
    text = "One two three four five. " * count
    found = check(text, Words(), 50)
    sizes = [passage.tokens for passage in found]
    assert len(sizes) == -(-count // 10)
    assert max(sizes) - min(sizes) <= 5 * len(sizes)
    assert min(sizes) >= 25


def test_a_paragraph_end_close_by_is_preferred() -> None:
    text = "Un deux trois quatre cinq. " * 9 + "\n\n" + "Six sept huit neuf dix. " * 10
    assert texts(text, check(text, Words(), 55))[0] == ("Un deux trois quatre cinq. " * 9).strip()


def test_a_heading_stays_with_what_follows() -> None:
    body = "Un deux trois quatre cinq. " * 4
    text = f"{body}\n\n# Second part\n\n{body}\n\n# Third part\n\n{body}"
    found = texts(text, check(text, Words(), 24))
    assert [own.split("\n")[0] for own in found[1:]] == ["# Second part", "# Third part"]


def test_a_long_sentence_is_cut_after_punctuation() -> None:
    text = "one two three four five six seven; eight nine ten eleven twelve thirteen fourteen end"
    assert texts(text, check(text, Words(), 10))[0].endswith("seven;")
    commas = text.replace(";", ",")
    assert texts(commas, check(commas, Words(), 10))[0].endswith("seven,")


def test_a_long_sentence_without_punctuation_is_cut_at_white_space() -> None:
    text = "word " * 100
    assert {word for own in texts(text, check(text, BPE, 16)) for word in own.split()} == {"word"}


def test_a_long_chinese_sentence_is_cut_after_its_punctuation() -> None:
    text = "春天的河水涨得很高，镇上的人整夜没有睡觉，桥一直在摇晃，早晨才平静下来"
    assert all(own[-1] in "，来" for own in texts(text, check(text, BPE, 50)))


@pytest.mark.parametrize("seen", ["e\u0301", "👩‍👩‍👧", "👍🏽", "🇫🇷", "ก็", "ﾊﾞ", "각"])
def test_a_word_is_cut_between_what_people_see_as_characters(seen: str) -> None:
    text = seen * 120
    found = check(text, BPE, 40)
    assert len(found) > 1
    assert all(len(own) % len(seen) == 0 for own in texts(text, found))


def test_one_endless_character_is_cut_between_code_points() -> None:
    check("o" + "\u0301" * 500, BPE, 16)


def test_a_scrap_is_filled_from_a_sentence_that_is_cut_anyway() -> None:
    text = "Title\n\n" + "word " * 100
    assert split(text, Words(), max_tokens=30)[0].tokens > 20
    link = "See " + "x" * 900
    assert split(link, BPE, max_tokens=30)[0].tokens > 20


def test_each_character_is_tokenised_about_twice() -> None:
    text = PROSE * 300
    counter = Counting(BPE)
    assert len(check(text, counter, 256)) > 50
    counter.characters = 0
    split(text, counter, max_tokens=256)
    assert counter.characters < 2.2 * len(text)
    counter.characters = 0
    split(PROSE, counter, max_tokens=256)
    assert counter.characters == len(PROSE.strip())


@pytest.mark.parametrize("pattern", ["A. ", "a\n", "x", "字", "e\u0301", "- x\n", "(.", "🇫🇷"])
def test_a_long_strange_text_takes_no_more_than_its_length(pattern: str) -> None:
    counter = Counting(BPE)
    text = pattern * (40_000 // len(pattern))
    split(text, counter, max_tokens=64)
    assert counter.characters < 6 * len(text)


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=f"no tokenizer.json in {re.escape(str(tmp_path))}"):
        FastTokenizer.from_folder(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(InvalidCheckpoint, match=r"tokenizer\.json is no tokenizer"):
        FastTokenizer.from_folder(tmp_path)


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    tokenizer = train_bpe()
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=2000)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = FastTokenizer.from_folder(tmp_path)
    assert loaded.offsets(PROSE) == BPE.offsets(PROSE)
    assert loaded.count(PROSE) == len(BPE.offsets(PROSE)) > 5


def test_special_tokens_in_a_text_are_plain_text() -> None:
    raw = train_bpe()
    assert len(raw.encode("<|end|>").ids) == 1
    assert FastTokenizer(raw).count("<|end|>") > 1


def test_offsets_are_code_points() -> None:
    spans = BPE.offsets("a字b")
    assert spans == [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)]


def test_threads_share_a_tokenizer() -> None:
    parts = [PROSE * n for n in range(1, 40)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(BPE.count, parts)) == [BPE.count(part) for part in parts]


def test_splitting_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, clara.passages; sys.exit(bool({'torch', 'transformers'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", code], check=True)
