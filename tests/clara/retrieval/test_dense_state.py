"""Whatever happens, every process ends with what a dictionary would hold."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from clara.db.connect import OpenDb
from clara.retrieval import faiss as adapter
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.faiss_kinds import Sizes

DIMENSION = 4
PASSAGES = [UUID(int=number << 96 | number) for number in range(1, 61)]
"""The first bits differ, as those of hashes do."""

some_passages = st.lists(st.sampled_from(PASSAGES), min_size=1, max_size=40, unique=True)
followers = st.sampled_from(["here", "beside", "elsewhere"])

STARTS = [
    "as it was",
    "without a snapshot",
    "on a damaged one",
    "on one that is cut off",
    "beside what a killed process left",
    "on the other host's disk",
]


def vectors(passages: Sequence[UUID], seed: int) -> dict[UUID, NDArray[np.float32]]:
    rows = np.random.default_rng(seed).standard_normal((len(passages), DIMENSION))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return dict(zip(passages, rows.astype(np.float32), strict=True))


class Followers(RuleBasedStateMachine):
    """Three processes on two hosts follow one log; two of them share a folder of snapshots."""

    db: OpenDb

    def __init__(self) -> None:
        super().__init__()
        self.collection = uuid4()
        self.truth: dict[UUID, NDArray[np.float32]] = {}
        self.hosts = {name: Path(tempfile.mkdtemp()) for name in ("one", "two")}
        self.indexes = {name: self.started(name) for name in ("here", "beside", "elsewhere")}

    def teardown(self) -> None:
        question = vectors(PASSAGES[:1], 1_000)[PASSAGES[0]]
        for name, index in self.indexes.items():
            self.compare(index, question)
            self.compare(self.started(name), question)
        for folder in self.hosts.values():
            shutil.rmtree(folder)

    def started(self, name: str) -> FaissIndex:
        """A new process; small enough bounds for every kind of index to be built."""
        return FaissIndex(
            self.db,
            encoder="tiny",
            dimension=DIMENSION,
            snapshots=self.hosts["two" if name == "elsewhere" else "one"],
            snapshot_rows=5,
            sizes=Sizes(flat=15, hnsw=35),
            later=lambda task: task(),
        )

    @rule(who=followers, passages=some_passages, seed=st.integers(0, 99))
    def put(self, who: str, passages: list[UUID], seed: int) -> None:
        new = vectors(passages, seed)
        self.indexes[who].put(self.collection, new)
        self.truth |= new

    @rule(who=followers, passages=some_passages)
    def delete(self, who: str, passages: list[UUID]) -> None:
        self.indexes[who].delete(self.collection, passages)
        self.truth = {p: v for p, v in self.truth.items() if p not in passages}

    @rule(who=followers)
    def drop(self, who: str) -> None:
        self.indexes[who].drop(self.collection)
        self.truth = {}

    @rule(who=followers, seed=st.integers(0, 99))
    def look(self, who: str, seed: int) -> None:
        self.compare(self.indexes[who], vectors(PASSAGES[:1], seed)[PASSAGES[0]])

    @rule(who=followers, how=st.sampled_from(STARTS), at=st.integers(0, 10_000))
    def restart(self, who: str, how: str, at: int) -> None:
        if how == "on the other host's disk":
            who = "elsewhere"
            shutil.copytree(self.hosts["one"], self.hosts["two"], dirs_exist_ok=True)
        for path in self.snapshots():
            content = bytearray(path.read_bytes())
            if how == "without a snapshot":
                path.unlink()
            elif how == "on a damaged one":
                if content:  # one that was cut off at 0 has nothing left to damage
                    content[at % len(content)] ^= 0xFF
                path.write_bytes(content)
            elif how == "on one that is cut off":
                path.write_bytes(content[: at % max(len(content), 1)])
            elif how == "beside what a killed process left":
                (path.parent / "1.tmp").write_bytes(content[:40])
        self.indexes[who] = self.started(who)

    @invariant()
    def one_follower_holds_what_the_dictionary_holds(self) -> None:
        index = self.indexes["here"]
        assert index.count(self.collection) == len(self.truth)
        self.compare(index, vectors(PASSAGES[:1], len(self.truth))[PASSAGES[0]])

    def snapshots(self) -> list[Path]:
        return [path for host in self.hosts.values() for path in host.rglob("*.snapshot")]

    def compare(self, index: FaissIndex, question: NDArray[np.float32]) -> None:
        exact = {p: float(vector @ question) for p, vector in self.truth.items()}
        scores = index.scores(self.collection, question, PASSAGES)
        assert scores.keys() == exact.keys()
        assert all(scores[p] == pytest.approx(exact[p], abs=2e-3) for p in exact)
        hits = index.search(self.collection, question, limit=len(PASSAGES))
        assert {hit.passage_id for hit in hits} == exact.keys()


def test_every_process_ends_with_what_a_dictionary_would_hold(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "LEAST", 8)
    machine: Any = type("Machine", (Followers,), {"db": db})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
