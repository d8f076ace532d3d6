from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.errors import InvalidInput
from clara.passages import FastTokenizer
from clara.pipeline.reading import reading, shown_title, split_document
from tests.tiny import tiny_base

LIMIT = 24


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FastTokenizer:
    return FastTokenizer.from_folder(tiny_base(tmp_path_factory.mktemp("base")))


@given(title=st.text(max_size=20), text=st.text(max_size=400))
def test_what_a_model_reads_of_a_passage_fits_its_limit(
    tokenizer: FastTokenizer, title: str, text: str
) -> None:
    shown = shown_title(title, tokenizer, max_tokens=LIMIT)
    spans = split_document(title, text, tokenizer, max_tokens=LIMIT)
    for span in spans:
        read = reading(shown, text[span.start : span.end])
        assert span.tokens == tokenizer.count(read) <= LIMIT
    kept = "".join(text[span.start : span.end] for span in spans)
    assert "".join(kept.split()) == "".join(text.split())


def test_a_title_that_would_crowd_out_the_passage_is_left_out(tokenizer: FastTokenizer) -> None:
    assert shown_title("Tea", tokenizer, max_tokens=LIMIT) == "Tea"
    assert shown_title("A very long title " * 9, tokenizer, max_tokens=LIMIT) == ""


def test_a_limit_no_character_fits_in_is_refused_by_name(tokenizer: FastTokenizer) -> None:
    with pytest.raises(InvalidInput) as caught:
        split_document("", "\U0001f468", tokenizer, max_tokens=1)
    assert caught.value.field == "text"
