"""What is measured of a question: who ranks which passages where, and how long each part takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from clara.filters import Range
from clara.pipeline.reading import reading
from clara.pipeline.record import Members, read, steady
from clara.retrieval import hybrid
from clara.retrieval.encoder import SentenceEncoder
from clara.types import Candidate, Hit

from .beir import Asked
from .stores import PARTS, Stores

if TYPE_CHECKING:
    from torch import Tensor

    from clara.model.models import Models

CUTS = (1, 3, 5, 20, 37)
LEXICAL, DENSE = 25, 12
"""Hits of each retriever, as the settings have them; alone, each is asked for the deepest cut."""

NARROW = {"filter 1 in 2": PARTS // 2, "filter 1 in 20": PARTS // 20, "filter 1 in 1000": 1}
"""Filters by how much they let through, as the first so many parts of the corpus."""


@dataclass
class Found:
    """Sums over all questions."""

    recall: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """By method, one number a cut."""
    times: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds by stage."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long the body takes."""
        began = perf_counter()
        yield
        self.times.setdefault(stage, []).append(1000 * (perf_counter() - began))

    def ranked(self, method: str, passages: Sequence[UUID], asked: Asked) -> None:
        """Note where the gold passages stand."""
        hits = [len(asked.gold & set(passages[:cut])) / len(asked.gold) for cut in CUTS]
        self.recall[method] = self.recall.get(method, np.zeros(len(CUTS))) + hits


def measure(
    questions: Sequence[Asked],
    stores: Stores,
    encoder: SentenceEncoder,
    rerank: Callable[[str, Sequence[Candidate]], list[UUID]] | None,
) -> Found:
    """Ask every question in every way."""
    found = Found()
    with ThreadPoolExecutor(4) as pool:
        _warm_up(questions[0], stores, encoder, pool)
        for asked in questions:
            with found.timed("encode the question"):
                vector = encoder.encode([asked.text])[0]
            _ask(asked, vector, stores, pool, found, rerank)
    return found


def _ask(
    asked: Asked,
    vector: NDArray[np.float32],
    stores: Stores,
    pool: ThreadPoolExecutor,
    found: Found,
    rerank: Callable[[str, Sequence[Candidate]], list[UUID]] | None,
) -> None:
    by_words: list[Hit] = []
    for name, index in stores.lexical.items():
        with found.timed(f"bm25, {name}"):
            hits = index.search(stores.collection, asked.text, limit=LEXICAL)
        deep = index.search(stores.collection, asked.text, limit=max(CUTS))
        found.ranked(f"bm25, {name}", [hit.passage_id for hit in deep], asked)
        by_words = by_words or hits
        _both(asked, vector, stores, name, pool, found)
    with found.timed("dense"):
        by_vector = stores.dense.search(stores.collection, vector, limit=DENSE)
    deep = stores.dense.search(stores.collection, vector, limit=max(CUTS))
    found.ranked("dense", [hit.passage_id for hit in deep], asked)
    candidates = hybrid.union(by_words, by_vector, limit=LEXICAL + DENSE)
    found.ranked("union", [one.passage_id for one in candidates], asked)
    merged = hybrid.rrf(by_words, by_vector, limit=LEXICAL + DENSE)
    found.ranked("rrf, k 60", [one.passage_id for one in merged], asked)
    with found.timed("fusion of ranks"):
        ids = [one.passage_id for one in candidates]
        cosines = stores.dense.scores(stores.collection, vector, ids)
        fused = hybrid.fuse(candidates, cosines)
    found.ranked("union + fusion, k 10", sorted(ids, key=lambda id_: -fused[id_]), asked)
    if rerank is not None:
        with found.timed("latents: compress what is new, score"):
            order = rerank(asked.text, candidates)
        found.ranked("union + latent", order, asked)


def _both(
    asked: Asked,
    vector: NDArray[np.float32],
    stores: Stores,
    name: str,
    pool: ThreadPoolExecutor,
    found: Found,
) -> None:
    """Candidates as a worker gets them: both retrievers at once, union, passages read."""
    everything: dict[str, int | None] = {"": None, **{f", {k}": v for k, v in NARROW.items()}}
    for suffix, least in everything.items():
        with found.timed(f"candidates, {name}{suffix}"):
            candidates(asked, vector, stores, name, pool, least)


def candidates(
    asked: Asked,
    vector: NDArray[np.float32],
    stores: Stores,
    name: str,
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
            lexical_limit=LEXICAL,
            dense_limit=DENSE,
            pool=pool,
            scope=scope,
        )
        return len(read(merged, stores.open_db))

    return steady(stores.collection, stores.open_db, look)


def _warm_up(
    asked: Asked, stores: Stores, encoder: SentenceEncoder, pool: ThreadPoolExecutor
) -> None:
    """The first search of a process loads the vectors."""
    vector = encoder.encode([asked.text])[0]
    for name in stores.lexical:
        candidates(asked, vector, stores, name, pool, None)


def latent_reranker(
    models: Models, stores: Stores
) -> Callable[[str, Sequence[Candidate]], list[UUID]]:
    """Ranks candidates by exact cosine of latents; each passage is compressed once."""
    kept: dict[UUID, Tensor] = {}

    def rerank(question: str, found: Sequence[Candidate]) -> list[UUID]:
        new = [one for one in read(found, stores.open_db) if one.candidate.passage_id not in kept]
        # a passage of this corpus may be longer than one pass: its beginning counts
        blocks = models.compressor.compress([reading(o.title, o.text) for o in new], cut=True)
        kept.update({o.candidate.passage_id: block for o, block in zip(new, blocks, strict=True)})
        ids = [one.passage_id for one in found]
        query = models.reasoner.encode([question])[0]
        scores = models.score(query, [kept[id_] for id_ in ids]).tolist()
        order = sorted(range(len(ids)), key=lambda at: -scores[at])
        return [ids[at] for at in order]

    return rerank
