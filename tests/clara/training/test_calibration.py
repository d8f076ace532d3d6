from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from clara.model.checkpoint import load
from clara.model.decoding import Lowered
from clara.model.models import Models, load_models
from clara.training import calibration
from clara.training.calibration import (
    least_answerability,
    least_score,
    refusal_leads,
    refusal_margin,
)
from clara.training.records import QuestionRecord
from clara.wording import NOT_IN_DOCUMENTS
from tests.tiny import SENTENCES, tiny_checkpoint


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("checkpoint") / "pooled"
    return load_models(load(tiny_checkpoint(folder, base, pooled_rates=(4, 8))), device="cpu")


def record(*positives: int) -> QuestionRecord:
    documents = tuple(text[:60] for text in SENTENCES[:4])
    return QuestionRecord("q", "", "Who came to the harbour?", documents, "tea", positives)


def prompt(models: Models, asked: QuestionRecord, text: bool) -> Tensor:
    if text:
        return models.generator.prompt_from_text(asked.question, asked.documents)
    blocks = models.compressor.compress(list(asked.documents))
    return models.generator.prompt_from_latents(asked.question, blocks)


def test_all_right_passages_but_a_share_reach_it(models: Models) -> None:
    records = [record(0), record(1, 2), record(3)]
    query = models.reasoner.encode([record().question])[0]
    scores = models.score(query, models.compressor.compress(record().documents)).tolist()
    found = least_score(models, records, lost=0.0)
    assert min(scores) - 0.01 <= found <= min(scores)
    assert found < least_score(models, records, lost=0.5) <= sorted(scores)[2]


def test_wrong_passages_do_not_count(models: Models) -> None:
    assert least_score(models, [record(0)]) == least_score(models, [record(0), record()])


def test_without_right_passages_there_is_none(models: Models) -> None:
    with pytest.raises(ValueError, match="which documents hold its answer"):
        least_score(models, [record()])


@pytest.mark.parametrize("text", [True, False])
def test_a_margin_is_what_all_leads_but_a_share_lie_under(models: Models, text: bool) -> None:
    records = [replace(record(at % 4), question=f"Who came {at} times?") for at in range(10)]
    leads = sorted(refusal_leads(models, [prompt(models, one, text) for one in records]))
    least = refusal_margin(models, [*records, record()], text=text, most=0.0)
    assert max(leads[-1], 0.0) <= least < max(leads[-1], 0.0) + 0.1


@pytest.mark.parametrize(
    ("leads", "most", "margin"),
    [
        ([-1.0, 0.25, 0.31, 2.0], 0.0, 2.0),
        ([-1.0, 0.25, 0.31, 2.0], 0.25, 0.8),
        ([-3.0, -2.0, -1.0], 0.0, 0.0),
    ],
    ids=["none above", "one of four above", "never ahead"],
)
def test_so_many_leads_lie_above_a_margin_that_is_rounded_up_and_never_below_0(
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    leads: list[float],
    most: float,
    margin: float,
) -> None:
    monkeypatch.setattr(
        calibration, "refusal_leads", lambda _models, prompts: leads[: len(prompts)]
    )
    records = [record(0)] * len(leads)
    assert refusal_margin(models, records, text=True, most=most) == pytest.approx(margin)
    assert sum(lead > margin for lead in leads) <= most * len(leads)


def test_a_lead_is_over_the_best_of_all_other_tokens(models: Models) -> None:
    asked = models.generator.prompt_from_text("Who?", ["Tea."])
    (lead,) = refusal_leads(models, [asked])
    (first, *_), *_ = models.tokens.encode([NOT_IN_DOCUMENTS])
    lowered = [Lowered(first, lead + sign * 0.01) for sign in (1, -1)]
    told = [
        models.generator.generate([asked], max_new_tokens=1, lowered=one)[0][0] for one in lowered
    ]
    assert told[0] != first == told[1]


def test_a_margin_needs_questions_whose_answers_are_there(models: Models) -> None:
    with pytest.raises(ValueError, match="which documents hold its answer"):
        refusal_margin(models, [record()], text=True)


class Told:
    """An encoder that holds the first word of a document for how well it answers."""

    least_answerability = 0.0

    def answerability(self, _: str, passages: Sequence[str]) -> list[float]:
        return [float(text.split()[0]) for text in passages]


def scored(*best: float) -> list[QuestionRecord]:
    return [QuestionRecord("q", "", "?", (f"{one} a", "0.0 b"), "a", (0,)) for one in best]


def test_all_answerable_questions_but_a_share_look_answered() -> None:
    records = scored(*(at / 100 for at in range(100)))
    assert least_answerability(Told(), records, most=0.0) == 0.0
    assert least_answerability(Told(), records, most=0.5) == pytest.approx(0.495)
    unknown = replace(scored(0.9)[0], positives=())
    assert least_answerability(Told(), [*scored(0.1239), unknown]) == 0.123
    with pytest.raises(ValueError, match="which documents hold its answer"):
        least_answerability(Told(), [unknown])
