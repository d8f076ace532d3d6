from __future__ import annotations

from dataclasses import replace

import pytest

from clara.evaluation import paraphrase as module
from clara.evaluation.datasets import Restatement
from clara.evaluation.paraphrase import Paraphrased, paraphrase
from clara.model.models import Models

GIVEN = [
    Restatement("a", "Tea reached the market in 1723.", "In 1723 there was tea."),
    Restatement("b", "The engineer was Margaret Osgood.", "It was Osgood."),
    Restatement("c", "Sea ice forms when salt water cools. " * 6, "Ice forms."),
]


@pytest.mark.parametrize("kind", ["models", "pooled"])
def test_a_passage_is_said_again_from_its_latent(
    request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: Models = request.getfixturevalue(kind)
    monkeypatch.setattr(module, "GROUP", 2)
    told: list[tuple[str, int, int]] = []
    found = paraphrase(models, GIVEN, max_new_tokens=8, progress=lambda *said: told.append(said))
    assert found.cut == 1
    assert told[-1] == ("answers", 3, 3)
    for row, given in zip(found.rows[:2], GIVEN, strict=False):
        (latent,) = models.compressor.compress([given.passage])
        text = models.tokens.prompts.paraphrase([len(latent)], 0)
        prompt = models.generator.place(models.tokens.encode([text])[0], [latent])
        (ids,) = models.generator.generate([prompt], max_new_tokens=8)
        assert row.text == models.generator.text_of(ids)


def test_numbers_compare_with_the_restatement_and_with_the_passage(models: Models) -> None:
    rows = paraphrase(models, GIVEN[:2], max_new_tokens=1).rows
    said = [replace(row, text=row.restatement.text) for row in rows]
    numbers = Paraphrased(tuple(said), cut=0, seconds=0.0).numbers()
    assert numbers["n"] == 2
    assert numbers["restatement_rougeL"] == numbers["restatement_rouge2"] == 1
    assert 0 < numbers["source_rouge1"] < 1
    assert numbers["source_numbers_kept"] == 1  # only the first passage has a number
    assert numbers["source_names_kept"] == 0.5  # only the second has names, and one is kept
    assert numbers["avg_words"] == 4
    assert numbers["intervals"]["source_numbers_kept"] == [1, 1]


def test_a_score_that_no_row_has_is_zero_and_not_an_error(models: Models) -> None:
    rows = paraphrase(models, [Restatement("x", "Tea.", "Tea.")], max_new_tokens=1).rows
    numbers = Paraphrased(rows, cut=0, seconds=0.0).numbers()
    assert numbers["source_numbers_kept"] == 0
