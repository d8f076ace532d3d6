"""Recall of the passages read: BM25, the sentence encoder, and their fusion.

Usage: python scripts/bench_fusion.py [CANDIDATES.jsonl[.gz] ...] [--limit N]

Without a file: the sample shop. A candidate file has `question`, `docs` and `pos_index` a line; the
documents of all its questions are searched together. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray

from clara.default_models import SENTENCE_ENCODER
from clara.pipeline.reading import reading
from clara.retrieval import hybrid
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.tantivy import TantivyIndex
from clara.settings import settings
from clara.types import Candidate, Hit, PassageText

CUTS = (1, 3, 5)
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """A question and the passages that answer it."""

    text: str
    gold: frozenset[UUID]


def main() -> None:
    """Measure every set that was named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="questions per file")
    arguments = parser.parse_args()
    encoder = SentenceEncoder(settings().models / SENTENCE_ENCODER.folder)
    sets = {path.name: candidates(path, arguments.limit) for path in arguments.files}
    for name, (passages, questions) in (sets or {"samples": samples()}).items():
        found = recall(passages, questions, encoder)
        print(f"{name}: {len(questions)} questions, {len(passages)} passages")
        for method, values in found.items():
            row = "  ".join(f"@{cut} {value:.3f}" for cut, value in zip(CUTS, values, strict=True))
            print(f"  {method:<12} {row}")
        print(json.dumps({"set": name, "n": len(questions), "recall": found}))


def recall(
    passages: Sequence[PassageText], questions: Sequence[Asked], encoder: SentenceEncoder
) -> dict[str, list[float]]:
    """Mean recall at each cut, by method."""
    vectors = encoder.encode([reading(p.title, p.text) for p in passages])
    by_id = {p.id: vector for p, vector in zip(passages, vectors, strict=True)}
    collection = uuid4()
    sums = {method: np.zeros(len(CUTS)) for method in METHODS}
    with tempfile.TemporaryDirectory() as folder:
        index = TantivyIndex(Path(folder))
        index.put(collection, passages)
        for asked in questions:
            vector = encoder.encode([asked.text])[0]
            cosines = {id_: float(one @ vector) for id_, one in by_id.items()}
            dense = sorted(cosines, key=lambda id_: -cosines[id_])[:12]
            merged = hybrid.union(
                index.search(collection, asked.text, limit=25),
                [Hit(id_, cosines[id_]) for id_ in dense],
                limit=50,
            )
            known = {c.passage_id: cosines[c.passage_id] for c in merged}
            for method, score in METHODS.items():
                order = sorted(merged, key=lambda c: -score(c, merged, known))
                top = [candidate.passage_id for candidate in order]
                hits = [len(asked.gold & set(top[:cut])) / len(asked.gold) for cut in CUTS]
                sums[method] += hits
    return {method: (total / len(questions)).round(3).tolist() for method, total in sums.items()}


Score = Callable[[Candidate, Sequence[Candidate], dict[UUID, float]], float]


def fused(k: int) -> Score:
    """Fusion with one k."""
    return lambda c, all_, known: hybrid.fuse(all_, known, k=k)[c.passage_id]


METHODS: dict[str, Score] = {
    "bm25": lambda c, _all, _known: -(c.lexical_rank or 1000),
    "encoder": lambda c, _all, known: known[c.passage_id],
    "fusion 60": fused(60),
    "fusion 10": fused(10),
}


def samples() -> tuple[list[PassageText], list[Asked]]:
    """The sample shop; one passage per document."""
    folder = Path(__file__).parents[1] / "samples"
    documents = [json.loads(line) for line in (folder / "catalogue.jsonl").open(encoding="utf-8")]
    ids = {document["_id"]: uuid4() for document in documents}
    questions = [json.loads(line) for line in (folder / "questions.jsonl").open(encoding="utf-8")]
    return (
        [PassageText(ids[d["_id"]], ids[d["_id"]], d["title"], d["text"]) for d in documents],
        [
            Asked(q["question"], frozenset(ids[name] for name in q["documents"]))
            for q in questions
            if q["answerable"]
        ],
    )


def candidates(path: Path, limit: int | None) -> tuple[list[PassageText], list[Asked]]:
    """A candidate file; equal documents are one passage."""
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
    records = [json.loads(line) for line in lines[:limit]]
    ids: dict[str, UUID] = {}
    passages: list[PassageText] = []
    questions: list[Asked] = []
    for record in records:
        for document in record["docs"]:
            if document not in ids:
                ids[document] = uuid4()
                title, _, text = document.rpartition("\n")
                passages.append(PassageText(ids[document], ids[document], title, text))
        gold = frozenset(ids[record["docs"][place]] for place in record["pos_index"])
        questions.append(Asked(record["question"], gold))
    return passages, questions


if __name__ == "__main__":
    main()
