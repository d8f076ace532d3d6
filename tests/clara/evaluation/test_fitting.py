from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from clara.evaluation.fitting import cut, fit
from clara.model.models import Models
from tests.tiny import SENTENCES

PIECES = [*SENTENCES, "猫猫猫 é “x” ", "<MEM0> ", "<|im_end|>", "\n\n  ", "1874"]


def test_only_texts_that_are_too_long_are_cut(models: Models) -> None:
    short, long = "Tea.", " ".join(SENTENCES)
    found = fit(models.tokens, [short, long, short])
    assert list(found) == [short, long]
    assert found[short] == short
    assert long.startswith(found[long])
    assert models.tokens.count([found[long]])[0] == models.tokens.doc_max_length


@given(text=st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
@settings(max_examples=40)
def test_what_is_left_fits_and_is_the_beginning(models: Models, text: str) -> None:
    tokens = models.tokens
    whole = tokens.prompts.plain(text.strip())
    for limit in (1, 7, 32):
        left = cut(tokens, text, limit)
        assert whole.startswith(left)
        assert tokens.count([left])[0] <= limit
        # a character of several tokens is left out whole
        assert left == whole or tokens.count([left])[0] > limit - 4
