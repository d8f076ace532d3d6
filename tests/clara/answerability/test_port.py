from __future__ import annotations

from collections.abc import Sequence

import pytest

from clara.answerability.port import PairEncoder, unanswered


class Told:
    """An encoder that was told of each passage how well it answers."""

    least_answerability = 0.2

    def __init__(self) -> None:
        self.asked = 0

    def answerability(self, _: str, passages: Sequence[str]) -> list[float]:
        self.asked += 1
        return [float(text) for text in passages]


@pytest.mark.parametrize(
    ("passages", "chosen", "missed"),
    [
        (["0.1", "0.3"], None, False),
        (["0.1", "0.19"], None, True),
        (["0.1", "0.2"], None, False),
        (["0.1", "0.3"], 0.4, True),
        (["0.1"], 0.0, False),
    ],
)
def test_one_passage_that_reaches_the_bound_is_enough(
    passages: list[str], chosen: float | None, missed: bool
) -> None:
    encoder = Told()
    assert isinstance(encoder, PairEncoder)
    assert unanswered("?", passages, encoder, chosen) == missed


def test_the_rest_is_looked_at_only_where_the_best_passages_do_not_answer() -> None:
    encoder = Told()
    assert not unanswered("?", ["0.1", "0.3", "0.1"], encoder, None)
    assert encoder.asked == 1
    assert not unanswered("?", ["0.1", "0.1", "0.1", "0.3"], encoder, None)
    assert encoder.asked == 3
    assert unanswered("?", [], encoder, None)
    assert encoder.asked == 3


def test_a_bound_that_lets_all_through_asks_nothing() -> None:
    encoder = Told()
    assert not unanswered("?", ["0.0"], encoder, -1.0)
    assert encoder.asked == 0
