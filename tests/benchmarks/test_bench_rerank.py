"""The weight of the latents' voice is chosen by what it does, on the questions that are named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from clara.evaluation.retrieval import Found, Method
from clara.evaluation.retrieval_data import Question
from clara.types import Candidate
from scripts.retrieval import voices

IDS = [UUID(int=n) for n in range(1, 13)]
WEIGHTS = (0.125, 1.0, 8.0)


def found(order: Sequence[UUID]) -> Found:
    """By words and vectors in this order."""
    candidates = [Candidate(id_, lexical_rank=at) for at, id_ in enumerate(order, start=1)]
    cosines = {id_: 1 - at / 100 for at, id_ in enumerate(order)}
    return Found({Method.FUSED: order}, candidates, cosines)


def latents(order: Sequence[UUID]) -> dict[UUID, float]:
    return {id_: 1 - at / 100 for at, id_ in enumerate(order)}


@pytest.mark.parametrize(("gold_by_latents", "wanted"), [(0, 8.0), (11, 0.125)])
def test_the_more_latents_find_the_more_they_say(gold_by_latents: int, wanted: float) -> None:
    """Words and vectors have the gold passage in the middle, latents first or last."""
    gold = IDS[5]
    others = [id_ for id_ in reversed(IDS) if id_ != gold]
    by_latents = [*others[:gold_by_latents], gold, *others[gold_by_latents:]]
    questions = [Question("?", {gold: 1.0})]
    numbers = voices.by_weight(questions, [found(IDS)], [latents(by_latents)], WEIGHTS)
    assert list(numbers) == ["union+fusion", "union+latent", "0.125", "1", "8"]
    assert numbers["union+fusion"]["mrr@10"] == pytest.approx(1 / 6)
    latent = numbers["union+latent"]["mrr@10"]
    assert latent == (1.0 if gold_by_latents == 0 else 0.0)
    assert voices.best(numbers, WEIGHTS) == wanted


def test_of_weights_that_rank_alike_the_smallest_is_chosen() -> None:
    questions = [Question("?", {IDS[0]: 1.0})]
    numbers = voices.by_weight(questions, [found(IDS)], [latents(IDS)], WEIGHTS)
    assert voices.best(numbers, (8.0, 1.0, 0.125)) == 0.125


def test_only_the_passages_of_the_questions_that_are_asked_are_searched(tmp_path: Path) -> None:
    records = [
        {"question": f"Who {n}?", "docs": [f"One {n}.", "Shared."], "pos_index": [n % 2]}
        for n in range(3)
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = voices.sample(path, 2)
    assert [one.text for one in data.passages] == ["One 0.", "Shared.", "One 1."]
    assert [asked.text for asked in data.questions] == ["Who 0?", "Who 1?"]
    assert [asked.among for asked in data.questions] == [None, None]
    names = {one.id: one.text for one in data.passages}
    assert [{names[id_] for id_ in asked.grades} for asked in data.questions] == [
        {"One 0."},
        {"Shared."},
    ]
