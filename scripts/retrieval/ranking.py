"""What is measured of a question: who finds which passages, and how long each part takes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clara.evaluation import retrieval
from clara.evaluation.retrieval import Limits, Method, Order, latent_orders, orders, rows
from clara.evaluation.retrieval_data import Question, SearchSet
from clara.evaluation.retrieval_scores import summary
from clara.evaluation.retrieval_vectors import Blocks
from clara.filters import Range
from clara.model.models import Models
from clara.pipeline.record import Members, read, steady
from clara.retrieval import hybrid
from clara.retrieval.encoder import SentenceEncoder
from clara.types import Hit

from .stores import PARTS, Stores

Vector = NDArray[np.float32]

NARROW = {"filter 1 in 2": PARTS // 2, "filter 1 in 20": PARTS // 20, "filter 1 in 1000": 1}
"""Filters by how much they let through, as the first so many parts of the corpus."""


@dataclass
class Found:
    """Of all questions."""

    by_words: list[dict[str, Order]] = field(default_factory=list)
    """What each engine's BM25 found, by question."""
    asked: list[retrieval.Found] = field(default_factory=list)
    """What all else found, with the first engine, by question."""
    times: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds by stage."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long the body takes."""
        began = perf_counter()
        yield
        self.times.setdefault(stage, []).append(1000 * (perf_counter() - began))


def measure(data: SearchSet, stores: Stores, encoder: SentenceEncoder, limits: Limits) -> Found:
    """Ask every question in every way."""
    found = Found()
    with ThreadPoolExecutor(4) as pool:
        _warm_up(data.questions[0], stores, encoder, limits, pool)
        for asked in data.questions:
            with found.timed("encode the question"):
                vector = encoder.encode_questions([asked.text])[0]
            _ask(asked, vector, stores, limits, found)
            _both(asked, vector, stores, limits, pool, found)
    return found


def scores(
    data: SearchSet, found: Found, models: Models | None, limits: Limits
) -> dict[str, dict[str, Any]]:
    """Of every method, and of a checkpoint's latents over the union where there is one."""
    ranked: list[dict[Method, Order]] = [{} for _ in found.asked]
    if models:
        blocks = Blocks(models, data.passages)
        ranked = latent_orders(data.questions, found.asked, blocks, limits)
    ordered = [
        words | {str(name): order for name, order in (one.orders | more).items()}
        for words, one, more in zip(found.by_words, found.asked, ranked, strict=True)
    ]
    scored = rows(data.questions, ordered)
    return {name: summary(each) for name, each in scored.items() if name != Method.BM25}


def _ask(asked: Question, vector: Vector, stores: Stores, limits: Limits, found: Found) -> None:
    """Time each search as a question makes it, then look deeper for what it finds alone."""
    by_words: dict[str, list[Hit]] = {}
    for name, index in stores.lexical.items():
        with found.timed(f"bm25, {name}"):
            index.search(stores.collection, asked.text, limit=limits.lexical)
        by_words[name] = index.search(stores.collection, asked.text, limit=limits.depth)
    with found.timed("dense"):
        taken = stores.dense.search(stores.collection, vector, limit=limits.dense)
    by_vector = stores.dense.search(stores.collection, vector, limit=limits.depth)
    cosines = partial(stores.dense.scores, stores.collection, vector)
    first = next(iter(by_words.values()))
    with found.timed("fusion of ranks"):
        candidates = hybrid.union(first[: limits.lexical], taken, limit=limits.candidates)
        hybrid.fuse(candidates, cosines([one.passage_id for one in candidates]))
    found.asked.append(orders(first, by_vector, limits, cosines))
    found.by_words.append(
        {f"bm25, {name}": [hit.passage_id for hit in hits] for name, hits in by_words.items()}
    )


def _both(
    asked: Question,
    vector: Vector,
    stores: Stores,
    limits: Limits,
    pool: ThreadPoolExecutor,
    found: Found,
) -> None:
    """Candidates as a worker gets them: both retrievers at once, union, passages read."""
    everything: dict[str, int | None] = {"": None, **{f", {k}": v for k, v in NARROW.items()}}
    for name in stores.lexical:
        for suffix, least in everything.items():
            with found.timed(f"candidates, {name}{suffix}"):
                candidates(asked, vector, stores, name, limits, pool, least)


def candidates(
    asked: Question,
    vector: Vector,
    stores: Stores,
    name: str,
    limits: Limits,
    pool: ThreadPoolExecutor,
    parts: int | None,
) -> int:
    """Search and read, with the first so many parts of the corpus allowed. Returns how many."""

    def look() -> int:
        filters = [] if parts is None else [Range("part", lt=parts)]
        scope = Members(stores.open_db, stores.collection, filters) if filters else None
        merged, _ = hybrid.search(
            stores.lexical[name],
            stores.dense,
            stores.collection,
            asked.text,
            vector,
            lexical_limit=limits.lexical,
            dense_limit=limits.dense,
            pool=pool,
            scope=scope,
        )
        return len(read(merged, stores.open_db))

    return steady(stores.collection, stores.open_db, look)


def _warm_up(
    asked: Question,
    stores: Stores,
    encoder: SentenceEncoder,
    limits: Limits,
    pool: ThreadPoolExecutor,
) -> None:
    """The first search of a process loads the vectors."""
    vector = encoder.encode_questions([asked.text])[0]
    for name in stores.lexical:
        candidates(asked, vector, stores, name, limits, pool, None)
