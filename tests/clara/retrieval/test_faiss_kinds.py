from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clara.retrieval import faiss_kinds
from clara.retrieval.faiss_kinds import Kind, Sizes, empty, gpu_copy, nearest, training_size

ON_A_PROCESSOR = [Kind.FLAT, Kind.HNSW, Kind.IVFPQ]


def units(count: int, *, dimension: int = 16, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(kind: Kind, vectors: NDArray[np.float32]) -> Any:
    size = training_size(kind, len(vectors))
    index = empty(kind, vectors.shape[1], vectors[:size], count=len(vectors))
    index.add(vectors)
    return index


@pytest.mark.parametrize("kind", ON_A_PROCESSOR)
def test_every_kind_finds_a_vector_that_is_there(kind: Kind) -> None:
    vectors = units(400)
    index = filled(kind, vectors)
    for at in (0, 7, 399):
        cosines, positions = nearest(kind, index, vectors[at], 20, None)
        assert at in positions
        assert len(set(positions.tolist())) == len(positions) <= 20
        assert (np.diff(cosines) <= 0).all()


@pytest.mark.parametrize("kind", ON_A_PROCESSOR)
def test_what_is_not_alive_is_passed_over(kind: Kind) -> None:
    vectors = units(401)
    index = filled(kind, vectors)
    alive = np.arange(401) % 5 > 0
    for at in (0, 5, 400):
        _, positions = nearest(kind, index, vectors[at], 30, alive)
        assert len(positions) > 0
        assert alive[positions].all()


@pytest.mark.parametrize("kind", ON_A_PROCESSOR)
def test_more_than_there_are_can_be_asked_for(kind: Kind) -> None:
    index = filled(kind, units(100))
    _, positions = nearest(kind, index, units(1)[0], 1_000, None)
    assert len(positions) <= 100
    if kind is not Kind.IVFPQ:
        assert set(positions.tolist()) == set(range(100))


@pytest.mark.parametrize("dimension", [3, 16, 30])
def test_codes_can_be_made_for_any_dimension(dimension: int) -> None:
    vectors = units(300, dimension=dimension)
    _, positions = nearest(Kind.IVFPQ, filled(Kind.IVFPQ, vectors), vectors[3], 50, None)
    assert 3 in positions


def test_a_graph_finds_what_comparing_all_finds() -> None:
    vectors, questions = units(2_000), units(20, seed=1)
    graph, flat = filled(Kind.HNSW, vectors), filled(Kind.FLAT, vectors)
    shared = [
        len(
            set(nearest(Kind.HNSW, graph, q, 10, None)[1].tolist())
            & set(nearest(Kind.FLAT, flat, q, 10, None)[1].tolist())
        )
        for q in questions
    ]
    assert sum(shared) >= 0.95 * 200


def test_an_inverted_file_without_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="to learn its lists from"):
        empty(Kind.IVFPQ, 8)


@given(count=st.integers(0, 3_000_000))
def test_the_kind_for_a_size_fits_it_and_grows_with_it(count: int) -> None:
    sizes = Sizes()
    kind = sizes.kind(count)
    order = [Kind.FLAT, Kind.HNSW, Kind.IVFPQ]
    assert sizes.fit(kind, count)
    assert order.index(sizes.kind(count + 1)) >= order.index(kind)


def test_a_collection_at_a_bound_is_not_built_again_for_every_document() -> None:
    sizes = Sizes(flat=100, hnsw=1_000)
    assert [sizes.kind(n) for n in (100, 101, 1_000, 1_001)] == [
        Kind.FLAT,
        Kind.HNSW,
        Kind.HNSW,
        Kind.IVFPQ,
    ]
    assert sizes.fit(Kind.HNSW, 60)
    assert not sizes.fit(Kind.HNSW, 49)
    assert not sizes.fit(Kind.FLAT, 101)
    assert not sizes.fit(Kind.HNSW, 1_001)
    assert sizes.fit(Kind.IVFPQ, 600)


def test_where_faiss_has_a_gpu_it_compares_every_vector_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    class Library:
        """The parts of faiss-gpu that are asked for, over the FAISS that is installed."""

        GpuClonerOptions = SimpleNamespace

        def StandardGpuResources(self) -> Any:  # noqa: N802 (FAISS's name)
            return SimpleNamespace(setTempMemory=asked.append)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def get_num_gpus(self) -> int:
            return 1

        def index_cpu_to_gpu(self, _: Any, device: int, index: Any, options: Any) -> Any:
            asked.append((device, options.useFloat16))
            return index

    real = faiss_kinds.library()
    monkeypatch.setattr(faiss_kinds, "library", Library)
    faiss_kinds._resources.cache_clear()
    sizes = Sizes(flat=10, hnsw=20, gpu=1_000)
    assert [sizes.kind(n) for n in (10, 500, 1_001)] == [Kind.FLAT, Kind.GPU, Kind.IVFPQ]
    index = filled(Kind.GPU, units(50))
    assert gpu_copy(Kind.GPU, index) is index
    assert asked == [faiss_kinds.GPU_SCRATCH_BYTES, (0, True)]
    assert gpu_copy(Kind.HNSW, index) is None
    faiss_kinds._resources.cache_clear()


def test_without_a_gpu_there_is_no_copy_on_it() -> None:
    assert not faiss_kinds.has_gpu() or hasattr(faiss_kinds.library(), "StandardGpuResources")
    if not faiss_kinds.has_gpu():
        assert gpu_copy(Kind.GPU, filled(Kind.GPU, units(5))) is None
