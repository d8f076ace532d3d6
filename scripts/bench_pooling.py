"""How well untrained pooled latents rank: the mean embedding left in, and taken off.

Usage: python scripts/bench_pooling.py FILE... [--base DIR] [--limit 250] [--rate 16]

FILE is in the form `clara evaluate` reads. Token weights are inverse document frequencies counted
in the candidates themselves. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from clara.default_models import BASE
from clara.evaluation.datasets import Record, read_records, stem
from clara.evaluation.metrics import retrieval_means
from clara.evaluation.ranking import best_first
from clara.model.backbone import Backbone, embedding_of, load_backbone
from clara.model.pooled import Middle, PooledKind, initial_pooling, middle_of
from clara.model.scoring import score
from clara.settings import settings

LENGTH = 256


@dataclass(frozen=True)
class Row:
    """One file, one way of pooling."""

    file: str
    centred: bool
    recall: dict[str, float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--base", type=Path, default=settings().models / BASE.folder)
    parser.add_argument("--limit", type=int, default=250)
    parser.add_argument("--rate", type=int, default=16)
    given = parser.parse_args()
    backbone = load_backbone(
        given.base, n_mem=LENGTH // given.rate, doc_max_length=LENGTH, different=False
    )
    rows = [
        measure(backbone, path, given.limit, given.rate, centred=centred)
        for path in given.files
        for centred in (False, True)
    ]
    for row in rows:
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in row.recall.items())
        print(f"{row.file:<12}{'centred' if row.centred else 'as it is':<10}{numbers}")
    print(json.dumps([row.__dict__ for row in rows]))


def measure(backbone: Backbone, path: Path, limit: int, rate: int, *, centred: bool) -> Row:
    """Recall of one file's gold passages among its candidates."""
    records = read_records(path, limit=limit)
    kind = _kind(backbone, records, rate)
    if not centred:
        nothing = Middle(torch.zeros_like(kind.middle.mean), kind.middle.size)
        kind = replace(kind, middle=nothing)
    ranked = [(best_first(_scores(kind, record).tolist()), record.pos_index) for record in records]
    means = retrieval_means(ranked)
    recall = {name: value for name, value in means.items() if name.startswith("recall")}
    return Row(stem(path), centred, recall)


def _kind(backbone: Backbone, records: tuple[Record, ...], rate: int) -> PooledKind:
    tokens, embedding = backbone.tokens, embedding_of(backbone.model).weight
    texts = sorted({doc for record in records for doc in record.docs})
    pooling = initial_pooling(
        tokens.encode(texts),
        vocabulary=tokens.size,
        width=backbone.width,
        numerals=tokens.numerals(),
    )
    middle = middle_of(embedding, tokens.base_size)
    return PooledKind(tokens, rate, pooling, embedding, middle, contextual=False)


def _scores(kind: PooledKind, record: Record) -> Tensor:
    texts = [record.question, *record.docs]
    ids = [row[: LENGTH + 3] for row in kind.tokens.wrapped(texts)]
    query, *blocks = kind.blocks(lambda _: [], ids)
    return score(kind, query, blocks)


if __name__ == "__main__":
    main()
