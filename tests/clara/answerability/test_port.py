from __future__ import annotations

from collections.abc import Sequence

import pytest

from clara.answerability.port import PairEncoder, best_answerability, unanswered


class Told:
    """An encoder that was told of each passage how well it answers, and of several as one."""

    least_answerability = 0.2

    def __init__(self, together: float = 0.0) -> None:
        self.asked: list[list[str]] = []
        self._together = together

    def answerability(self, _: str, passages: Sequence[str]) -> list[float]:
        self.asked.append(list(passages))
        return [self._together if "\n" in text else float(text) for text in passages]


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
    assert encoder.asked == [["0.1", "0.3"]]
    assert not unanswered("?", ["0.1", "0.1", "0.1", "0.3"], encoder, None)
    assert encoder.asked[1:] == [["0.1", "0.1"], ["0.1", "0.3"]]


def test_without_passages_nothing_is_answered_and_nothing_asked() -> None:
    encoder = Told()
    assert unanswered("?", [], encoder, None)
    assert encoder.asked == []


def test_passages_that_answer_only_together_answer() -> None:
    encoder = Told(together=0.3)
    assert not unanswered("?", ["0.1", "0.01", "0.19", "0.15"], encoder, None)
    assert encoder.asked[-1] == ["0.19\n0.15\n0.1"]
    assert unanswered("?", ["0.1", "0.19"], Told(together=0.19), None)


def test_a_single_passage_is_read_once() -> None:
    encoder = Told(together=0.3)
    assert unanswered("?", ["0.1"], encoder, None)
    assert encoder.asked == [["0.1"]]


@pytest.mark.parametrize(
    ("passages", "together", "best"),
    [(["0.1", "0.3"], 0.2, 0.3), (["0.1", "0.3"], 0.5, 0.5), (["0.1"], 0.5, 0.1)],
)
def test_the_best_is_of_one_passage_or_of_some_together(
    passages: list[str], together: float, best: float
) -> None:
    assert best_answerability("?", passages, Told(together)) == best


@pytest.mark.parametrize("least", [0.05, 0.1, 0.3, 0.31, 0.5, 0.6])
@pytest.mark.parametrize("passages", [["0.1"], ["0.1", "0.3"], ["0.2", "0.0", "0.4"]])
def test_what_is_refused_is_what_stays_below_the_bound_at_its_best(
    passages: list[str], least: float
) -> None:
    best = best_answerability("?", passages, Told(0.5))
    assert unanswered("?", passages, Told(0.5), least) == (best < least)


def test_a_bound_that_lets_all_through_asks_nothing() -> None:
    encoder = Told()
    assert not unanswered("?", ["0.0"], encoder, -1.0)
    assert encoder.asked == []
