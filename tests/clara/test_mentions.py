from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.evidence import WORD
from clara.mentions import TokenStates, faintest_mention, names_of

SAME = {"Vienna": ("Wien",), "Ghent": ("Gent", "Gand")}
"""Names that the encoder below holds for one another."""


class Reader:
    """An encoder for which a word is like itself, half like its other names, and like no other."""

    def __init__(self) -> None:
        self.asked = 0
        self.places: dict[str, int] = {}

    def token_states(self, texts: Sequence[str]) -> list[TokenStates]:
        self.asked += 1
        return [self._of(text) for text in texts]

    def _of(self, text: str) -> TokenStates:
        found = list(WORD.finditer(text))
        states = np.zeros((len(found) + 1, 256), dtype=np.float32)
        states[0, 0] = 1
        for at, match in enumerate(found, start=1):
            states[at] = self._state(match[0])
        return TokenStates(states, [(0, 0), *(match.span() for match in found)])

    def _state(self, word: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        state = np.zeros(256, dtype=np.float32)
        name = next((name for name, others in SAME.items() if word in others), word)
        own = 1 if name == word else 0.6
        state[self._place(name)] = own
        state[self._place(f"{word} itself")] += np.sqrt(1 - own**2)
        return state

    def _place(self, word: str) -> int:
        return self.places.setdefault(word, len(self.places) + 1)


def names(question: str) -> list[str]:
    return [match[0] for match in names_of(question)]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("When does the Larch & Loom shop in Vienna open?", ["Larch", "Loom", "Vienna"]),
        ("Vienna: when does it open? Please say. Can I?", []),
        ("I bought a coat. Where is Ghent?", ["Ghent"]),
        ("who is the queen of britain", []),
        ("WHEN DOES THE SHOP IN VIENNA OPEN?", []),
        ("Is It The Same?", []),
        ('He asked: "Vienna or Ghent?"', ["Ghent"]),
        ("", []),
        ("?", []),
    ],
)
def test_names_are_words_with_a_capital_that_no_sentence_begins_with(
    question: str, found: list[str]
) -> None:
    assert names(question) == found


@given(st.text())
def test_any_text_has_names_that_are_its_own(question: str) -> None:
    assert all(question[match.start() : match.end()] == match[0] for match in names_of(question))


def test_a_name_that_stands_in_a_passage_is_mentioned_and_no_encoder_asked() -> None:
    reader = Reader()
    assert faintest_mention("When does Vienna open?", ["Vienna opens at 9."], reader) is None
    assert faintest_mention("When does vienna open?", ["Ghent opens at 9."], reader) is None
    assert reader.asked == 0


def test_a_name_that_nothing_comes_near_is_not() -> None:
    found = faintest_mention("When does Vienna open?", ["Ghent opens.", "Lyon too."], Reader())
    assert found is not None
    assert (found.name, found.cosine) == ("Vienna", 0)


def test_another_word_for_a_name_mentions_it_as_well_as_the_encoder_sees_it() -> None:
    found = faintest_mention("When does Vienna open?", ["Ghent opens.", "Wien auch."], Reader())
    assert found is not None
    assert found.cosine == pytest.approx(0.6)


def test_of_several_names_the_faintest_counts() -> None:
    found = faintest_mention("Is Ghent nearer than Vienna or Lyon?", ["Gand, Lyon."], Reader())
    assert found is not None
    assert (found.name, found.cosine) == ("Vienna", 0)


def test_a_name_that_others_mention_is_not_missed_in_what_is_read() -> None:
    reader = Reader()
    question, read = "How many days off has one at Acme?", ["Everybody has 25 days off."]
    assert faintest_mention(question, read, reader) is not None
    assert faintest_mention(question, read, reader, ["Acme was founded in 1987."]) is None


def test_a_name_behind_what_the_encoder_reads_is_not_held_against_anybody() -> None:
    class Short(Reader):
        def token_states(self, texts: Sequence[str]) -> list[TokenStates]:
            whole = super().token_states(texts)
            return [TokenStates(one.states[:2], one.spans[:2]) for one in whole]

    found = faintest_mention("When does the shop in Vienna open?", ["Ghent opens."], Short())
    assert found is not None
    assert found.cosine == 1
