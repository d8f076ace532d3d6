"""How long the latents of one question's candidates take to read: from Postgres, from memory."""

from __future__ import annotations

from time import perf_counter
from uuid import UUID

import numpy as np
import torch

from clara.evaluation.retrieval_data import SearchSet
from clara.retrieval.latents import CachedLatents, PostgresLatents

from .stores import Stores

ROWS, WIDTH = 16, 576
"""Of a block of the default base at rate 16 and 256 tokens: 18 KiB."""

CANDIDATES = 50
QUESTIONS = 200
"""Groups of candidates, no passage in two: 184 MB, more than Postgres keeps by itself untuned."""

FINGERPRINT = "bench"
SEED = 7
MEMORY = 2**30


def measure(data: SearchSet, stores: Stores) -> dict[str, list[float]]:
    """Milliseconds of every group, first not in the worker's memory, then there.

    Blocks are random numbers: nothing about reading them depends on what they say.
    """
    groups = _groups([one.id for one in data.passages])
    store = PostgresLatents(stores.open_db)
    random = torch.Generator().manual_seed(SEED)
    for group in groups:
        blocks = torch.randn((len(group), ROWS, WIDTH), generator=random).bfloat16()
        store.put(FINGERPRINT, dict(zip(group, blocks, strict=True)))
    cached = CachedLatents(store, MEMORY)
    times: dict[str, list[float]] = {}
    for stage in ("from a cold cache", "from a warm cache"):
        name = f"latents of {len(groups[0])} candidates, {stage}"
        times[name] = [_read(cached, group) for group in groups]
    return times


def _groups(ids: list[UUID]) -> list[list[UUID]]:
    """Passages of one group are as far apart in the table as those of a question."""
    count = max(1, min(QUESTIONS, len(ids) // CANDIDATES))
    order = np.random.default_rng(SEED).permutation(len(ids))
    return [
        [ids[at] for at in order[number * CANDIDATES : (number + 1) * CANDIDATES]]
        for number in range(count)
    ]


def _read(store: CachedLatents, group: list[UUID]) -> float:
    began = perf_counter()
    found = store.get(FINGERPRINT, group)
    took = 1000 * (perf_counter() - began)
    if len(found) != len(group):
        raise RuntimeError(f"{len(group) - len(found)} of {len(group)} blocks were not read")
    return took
