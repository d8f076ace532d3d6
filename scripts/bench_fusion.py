"""Recall of the passages read: BM25, the sentence encoder, and ways to fuse their ranks.

Usage: python scripts/bench_fusion.py [CANDIDATES.jsonl[.gz] ...] [--limit N] [--vectors FOLDER]

Without a file: the sample shop. A candidate file has `question`, `docs` and `pos_index` a line; the
documents of all its questions are searched together. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

from retrieval import voices

from clara.default_models import SENTENCE_ENCODER
from clara.evaluation.retrieval import Found, Limits, Method, Order, rows, search
from clara.evaluation.retrieval_data import Question, SearchSet
from clara.evaluation.retrieval_scores import summary
from clara.evaluation.retrieval_vectors import embedding_of
from clara.retrieval import hybrid
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.tantivy import TantivyIndex
from clara.settings import settings
from clara.types import PassageText

NUMBERS = ("recall@1", "recall@3", "recall@5", "ndcg@10")


def main() -> None:
    """Measure every set that was named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="questions per file")
    parser.add_argument("--vectors", type=Path, help="folder to keep the encoder's vectors in")
    given = parser.parse_args()
    encoder = SentenceEncoder(settings().models / SENTENCE_ENCODER.folder)
    sets = [voices.sample(path, given.limit) for path in given.files] or [samples()]
    for data in sets:
        with tempfile.TemporaryDirectory() as folder:
            embedding = embedding_of(encoder, None, given.vectors)
            found = search(data, TantivyIndex(Path(folder)), embedding, Limits())
        orders = [{name: order(one) for name, order in METHODS.items()} for one in found]
        told = {name: summary(each) for name, each in rows(data.questions, orders).items()}
        print(f"{data.name}: {len(data.questions)} questions, {len(data.passages)} passages")
        for name, numbers in told.items():
            print(f"  {name:<12}" + "".join(f"  {key} {numbers[key]:.3f}" for key in NUMBERS))
        print(json.dumps({"set": data.name, "scores": told}))


def fused(k: int) -> Callable[[Found], Order]:
    """Fusion with one k."""

    def order(one: Found) -> Order:
        scores = hybrid.fuse(one.candidates, one.cosines, k=k)
        return sorted(scores, key=lambda passage: -scores[passage])

    return order


def found_by(method: Method) -> Callable[[Found], Order]:
    """As the evaluation orders them."""
    return lambda one: one.orders[method]


METHODS: dict[str, Callable[[Found], Order]] = {
    "bm25": found_by(Method.BM25),
    "encoder": found_by(Method.DENSE),
    "union": found_by(Method.UNION),
    **{f"fusion {k}": fused(k) for k in (60, 10, 3, 1)},
}


def samples() -> SearchSet:
    """The sample shop; one passage per document."""
    folder = Path(__file__).parents[1] / "samples"
    documents = [json.loads(line) for line in (folder / "catalogue.jsonl").open(encoding="utf-8")]
    ids: dict[str, UUID] = {document["_id"]: uuid4() for document in documents}
    questions = [json.loads(line) for line in (folder / "questions.jsonl").open(encoding="utf-8")]
    return SearchSet(
        "samples",
        [PassageText(ids[d["_id"]], ids[d["_id"]], d["title"], d["text"]) for d in documents],
        [
            Question(q["question"], {ids[name]: 1.0 for name in q["documents"]})
            for q in questions
            if q["answerable"]
        ],
    )


if __name__ == "__main__":
    main()
