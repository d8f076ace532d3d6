"""Kinds of FAISS index by number of vectors: what is found, how fast, how large, how long to build.

Usage: python scripts/bench_dense.py [--sizes 10000 100000] [--dimension 384] [--vectors FILE.npy]
           [--questions 200] [--limit 12] [--kinds flat hnsw ivfpq] [--json FILE]

Vectors are synthetic, drawn around centres that overlap, unless a file of unit vectors (n,
dimension) is given; a file's last rows are the questions. Recall is against comparing all vectors
in float32. An index is asked as a worker asks it: candidates, then exact cosines. For ivfpq a
worker reads the vectors of its 100 candidates from Postgres, which is not in these times. Prints a
table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from clara.retrieval.dense_log import STORED, unit
from clara.retrieval.faiss_copy import Copy
from clara.retrieval.faiss_kinds import Kind, compute_alone, empty, library, training_size

Vectors = NDArray[np.float32]

SEED = 7
PER_CENTRE = 100
SPREAD = 1.0
"""Of a vector around its centre, whose own numbers have the spread 1."""

PAGE = 5_000


@dataclass(frozen=True)
class Measured:
    """One kind at one size."""

    kind: str
    vectors: int
    recall: float
    """Share of the true best that came back."""
    p50_ms: float
    p99_ms: float
    build_s: float
    bytes_per_vector: float
    """Of the index alone, as it is written down."""


def main() -> None:
    """Measure every kind at every size."""
    given = _arguments()
    compute_alone()
    found = []
    titles = f"{'recall':>8}{'p50 ms':>9}{'p99 ms':>9}{'build s':>9}{'bytes':>8}"
    print(f"{'vectors':>9} {'kind':<7}{titles}")
    for size in given.sizes:
        vectors, questions = _data(given, size)
        truth = _truth(vectors, questions, given.limit)
        for kind in map(Kind, given.kinds):
            one = _measure(kind, vectors, questions, truth, given.limit)
            found.append(asdict(one))
            print(
                f"{one.vectors:>9,} {one.kind:<7}{one.recall:>8.3f}{one.p50_ms:>9.2f}"
                f"{one.p99_ms:>9.2f}{one.build_s:>9.1f}{one.bytes_per_vector:>8.0f}",
                flush=True,
            )
    source = str(given.vectors.name) if given.vectors else "synthetic"
    line = json.dumps({"source": source, "dimension": given.dimension, "measured": found})
    print(line)
    if given.json:
        given.json.write_text(line + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--vectors", type=Path, help="file of unit vectors instead")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--kinds", nargs="+", default=["flat", "hnsw", "ivfpq"])
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    return parser.parse_args()


def _data(given: argparse.Namespace, size: int) -> tuple[Vectors, Vectors]:
    """Vectors (size, dimension) and questions, none of which is among them."""
    if given.vectors:
        rows = np.load(given.vectors).astype(np.float32)
        return rows[: min(size, len(rows) - given.questions)], rows[-given.questions :]
    random = np.random.default_rng(SEED)
    centres = random.standard_normal((max(1, size // PER_CENTRE), given.dimension), np.float32)
    total = size + given.questions
    rows = centres[random.integers(0, len(centres), total)]
    rows += SPREAD * random.standard_normal((total, given.dimension), np.float32)
    rows = unit(rows)
    return rows[:size], rows[size:]


def _truth(vectors: Vectors, questions: Vectors, limit: int) -> list[set[int]]:
    index = library().IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return [set(row) for row in index.search(questions, limit)[1].tolist()]


def _measure(
    kind: Kind, vectors: Vectors, questions: Vectors, truth: Sequence[set[int]], limit: int
) -> Measured:
    copy, index, build_s = _built(kind, vectors)
    stored = unit(vectors.astype(STORED).astype(np.float32))
    shared, times = 0, []
    for question, best in zip(questions, truth, strict=True):
        started = perf_counter()
        scores, coded = copy.scores(question, copy.near(question, limit))
        scores |= {id_: float(stored[id_.int - 1] @ question) for id_ in coded}
        hits = sorted(scores, key=lambda id_: -scores[id_])[:limit]
        times.append(perf_counter() - started)
        shared += len(best & {id_.int - 1 for id_ in hits})
    spread = np.quantile(times, [0.5, 0.99]) * 1000
    return Measured(
        kind=kind.value,
        vectors=len(vectors),
        recall=shared / (limit * len(questions)),
        p50_ms=float(spread[0]),
        p99_ms=float(spread[1]),
        build_s=build_s,
        bytes_per_vector=library().serialize_index(index).nbytes / len(vectors),
    )


def _built(kind: Kind, vectors: Vectors) -> tuple[Copy, Any, float]:
    """A copy that holds all vectors, its index, and the seconds it took."""
    rows = [(at + 1, _id(at), row.tobytes()) for at, row in enumerate(vectors.astype(STORED))]
    started = perf_counter()
    size = training_size(kind, len(vectors))
    sample = np.random.default_rng(SEED).permutation(len(vectors))[:size]
    copy = Copy(vectors.shape[1])
    index = empty(kind, vectors.shape[1], vectors[sample], count=len(vectors))
    copy.build(kind, index)
    for start in range(0, len(rows), PAGE):
        copy.apply(rows[start : start + PAGE])
    copy.finish()
    return copy, index, perf_counter() - started


def _id(at: int) -> UUID:
    """Of a row; 0 is no passage."""
    return UUID(int=at + 1)


if __name__ == "__main__":
    main()
