from __future__ import annotations

from pathlib import Path

import pytest

from clara.model.checkpoint import load
from clara.model.models import Models, load_models
from clara.training.calibration import least_score
from clara.training.records import QuestionRecord
from tests.tiny import SENTENCES, tiny_checkpoint


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("checkpoint") / "pooled"
    return load_models(load(tiny_checkpoint(folder, base, pooled_rates=(4, 8))), device="cpu")


def record(*positives: int) -> QuestionRecord:
    documents = tuple(text[:60] for text in SENTENCES[:4])
    return QuestionRecord("q", "", "Who came to the harbour?", documents, "tea", positives)


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
