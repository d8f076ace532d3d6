"""The retrieval benchmark counts right and leaves nothing behind; times are not looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from clara.db.connect import OpenDb
from clara.db.tables import Collection, DenseEntry, Document, Passage
from clara.evaluation.retrieval import Limits
from clara.evaluation.retrieval_data import Question, SearchSet, read_beir
from clara.evaluation.retrieval_scores import CUTS
from clara.model.checkpoint import load
from clara.model.models import Models, load_models
from clara.pipeline.reading import reading
from clara.retrieval.encoder import SentenceEncoder
from clara.settings import Settings
from scripts.retrieval import ranking, stores
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder

CORPUS = {
    "tea": "Tea reached the market in 1723 with a ship from Canton.",
    "wall": "The harbour wall was built in 1874.",
    "bees": "Honey bees dance on the comb.",
    "ice": "Sea ice forms when salt water cools.",
    "more": "The harbour has another wall.",
}
QUESTIONS = {"1": "ship from Canton", "2": "harbour wall"}
GOLD = [("1", "tea", 1), ("2", "wall", 1), ("2", "more", 2), ("2", "ice", 0)]


@pytest.fixture
def data(tmp_path: Path) -> SearchSet:
    corpus = [{"_id": k, "title": k, "text": text} for k, text in CORPUS.items()]
    queries = [{"_id": k, "text": text} for k, text in QUESTIONS.items()]
    for name, lines in {"corpus.jsonl": corpus, "queries.jsonl": queries}.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = "".join(f"{q}\t{p}\t{score}\n" for q, p, score in GOLD)
    (tmp_path / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return read_beir(tmp_path)


def test_every_way_is_measured_and_nothing_stays(
    data: SearchSet,
    tmp_path: Path,
    database_url: str,
    db: OpenDb,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("models")
    encoder = SentenceEncoder(tiny_encoder(home / "encoder"))
    models = load_models(
        load(tiny_checkpoint(home / "tiny", tiny_base(home / "base"))), device="cpu"
    )
    config = Settings(
        _env_file=None, database_url=database_url, home=tmp_path, elasticsearch_url=""
    )
    vectors = stores.embed(data.passages, encoder, tmp_path / "kept.npy")
    assert np.array_equal(stores.embed(data.passages, encoder, tmp_path / "kept.npy"), vectors)
    with stores.filled(data.passages, vectors, config, encoder="tiny") as made:
        found = ranking.measure(data, made, encoder, Limits())
        assert found.times["candidates, tantivy, filter 1 in 1000"]
    scores = ranking.scores(data, found, models, Limits())
    # one gold passage for the first question, two for the second, which both words find
    assert [scores["bm25, tantivy"][f"recall@{k}"] for k in CUTS] == [0.75, 1, 1, 1, 1]
    assert scores["union"]["recall@37"] == 1.0
    latent = [expected_latent_recall(models, data, one) for one in data.questions]
    assert [scores["union+latent"][f"recall@{k}"] for k in CUTS] == pytest.approx(
        np.mean(latent, axis=0).tolist()
    )
    assert "union+latent" not in ranking.scores(data, found, None, Limits())
    with db() as session:
        for table in (Collection, Document, Passage):
            assert session.scalar(select(func.count()).select_from(table)) == 0
        assert session.scalar(select(func.count()).where(DenseEntry.vector.is_not(None))) == 0


def expected_latent_recall(models: Models, data: SearchSet, asked: Question) -> list[float]:
    """By scoring the whole corpus, which both searches together find."""
    blocks = models.compressor.compress([reading(one.title, one.text) for one in data.passages])
    scores = models.score(models.reasoner.encode([asked.text])[0], blocks).tolist()
    order: list[Any] = [data.passages[at].id for at in np.argsort(scores)[::-1]]
    gold = set(asked.grades)
    return [len(gold & set(order[:cut])) / len(gold) for cut in CUTS]
