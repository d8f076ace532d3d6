"""The retrieval benchmark counts right and leaves nothing behind; times are not looked at."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from clara.db.connect import OpenDb
from clara.db.tables import Collection, DenseEntry, Document, Passage
from clara.errors import InvalidDataset
from clara.model.checkpoint import load
from clara.model.models import load_models
from clara.pipeline.reading import reading
from clara.retrieval.encoder import SentenceEncoder
from clara.settings import Settings
from scripts.retrieval import beir, ranking, stores
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder

CORPUS = {
    "tea": "Tea reached the market in 1723 with a ship from Canton.",
    "wall": "The harbour wall was built in 1874.",
    "bees": "Honey bees dance on the comb.",
    "ice": "Sea ice forms when salt water cools.",
    "more": "The harbour has another wall.",
}
QUESTIONS = {"1": "ship from Canton", "2": "harbour wall", "3": "nobody judged this"}
GOLD = [("1", "tea", 1), ("2", "wall", 1), ("2", "more", 2), ("2", "ice", 0)]


@pytest.fixture(params=["plain", "gzipped"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    corpus = [{"_id": k, "title": k, "text": text} for k, text in CORPUS.items()]
    queries = [{"_id": k, "text": text} for k, text in QUESTIONS.items()]
    lines = {"corpus.jsonl": corpus, "queries.jsonl": queries}
    for name, rows in lines.items():
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if request.param == "gzipped":
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (tmp_path / name).write_bytes(data)
    judged = "".join(f"{q}\t{p}\t{score}\n" for q, p, score in GOLD)
    (tmp_path / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return tmp_path


def read(folder: Path, **options: Any) -> tuple[list[str], dict[str, set[str]]]:
    """Titles, and titles of gold passages by question."""
    passages, asked = beir.read(folder, **{"questions": None, "passages": None} | options)
    names = {one.id: one.title for one in passages}
    return list(names.values()), {one.text: {names[id_] for id_ in one.gold} for one in asked}


def test_a_folder_is_read_with_the_questions_that_have_a_gold_passage(folder: Path) -> None:
    names, asked = read(folder)
    assert names == list(CORPUS)
    assert asked == {"ship from Canton": {"tea"}, "harbour wall": {"wall", "more"}}


def test_a_part_of_a_corpus_holds_the_gold_of_the_questions_that_are_asked(folder: Path) -> None:
    assert read(folder, passages=1) == (["tea", "wall", "more"], read(folder)[1])
    names, asked = read(folder, questions=1, passages=3)
    assert (names, list(asked)) == (["tea", "wall", "bees"], ["ship from Canton"])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"qrels\.tsv"):
        beir.read(tmp_path, questions=None, passages=None)


def test_every_way_is_measured_and_nothing_stays(
    folder: Path, database_url: str, db: OpenDb, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("models")
    encoder = SentenceEncoder(tiny_encoder(home / "encoder"))
    base = tiny_base(home / "base")
    models = load_models(load(tiny_checkpoint(home / "tiny", base)), device="cpu")
    config = Settings(_env_file=None, database_url=database_url, home=folder, elasticsearch_url="")
    passages, questions = beir.read(folder, questions=None, passages=None)
    vectors = stores.embed(passages, encoder, folder / "kept.npy")
    assert np.array_equal(stores.embed(passages, encoder, folder / "kept.npy"), vectors)
    with stores.filled(passages, vectors, config, encoder="tiny") as made:
        rerank = ranking.latent_reranker(models, made)
        found = ranking.measure(questions, made, encoder, rerank)
        latent = [expected_latent_recall(models, passages, one) for one in questions]
        assert found.times["candidates, tantivy, filter 1 in 1000"]
    # one gold passage for the first question, two for the second, which both words find
    assert found.recall["bm25, tantivy"].tolist() == [1.5, 2.0, 2.0, 2.0, 2.0]
    assert found.recall["union"][-1] == 2.0
    assert found.recall["union + latent"].tolist() == pytest.approx(np.sum(latent, axis=0))
    with db() as session:
        for table in (Collection, Document, Passage):
            assert session.scalar(select(func.count()).select_from(table)) == 0
        assert session.scalar(select(func.count()).where(DenseEntry.vector.is_not(None))) == 0


def expected_latent_recall(models: Any, passages: Any, asked: beir.Asked) -> list[float]:
    """By scoring the whole corpus, which both searches together find."""
    blocks = models.compressor.compress([reading(p.title, p.text) for p in passages], cut=True)
    scores = models.score(models.reasoner.encode([asked.text])[0], blocks).tolist()
    order = [passages[at].id for at in np.argsort(scores)[::-1]]
    return [len(asked.gold & set(order[:cut])) / len(asked.gold) for cut in ranking.CUTS]
