"""Which FAISS index for how many vectors, and how each is made and asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

LINKS = 32
"""Neighbours a vector is linked to in HNSW's graph: 16 found 1 to 7 % less."""

BUILD_LOOK = 40
"""Vectors looked at to link a new one; 80 took twice as long to build and found no more."""

LOOK = 64
"""Vectors of the graph looked at per search: 32 found 2 % less at 100,000, 128 no more."""

LISTS = 4
"""Lists of an inverted file, as a multiple of the root of its vectors."""

PROBES = 32
"""Lists looked at per search."""

POINTS = 50
"""Vectors a list's centre is learned from; FAISS warns under 39."""

BYTE_POINTS = 39 * 256
"""Vectors that the 256 values of a code are learned from at least."""

NUMBERS_PER_BYTE = 4
"""Of a vector, that one byte of its code stands for; 8 lost twice as many of the nearest 12."""

GPU_SCRATCH_BYTES = 64 * 2**20
GPU_MOST = 2_048
"""Hits a GPU returns at most."""


class Kind(StrEnum):
    """How a set of vectors is searched."""

    FLAT = "flat"
    """Every one compared, in float16."""
    GPU = "gpu"
    """Every one compared, on a GPU."""
    HNSW = "hnsw"
    """Along a graph of neighbours, in float16."""
    IVFPQ = "ivfpq"
    """In the nearest lists, by codes of a byte for 4 numbers; the best are compared in full."""

    @property
    def whole(self) -> bool:
        """Whether the vectors can be read back."""
        return self is not Kind.IVFPQ


@dataclass(frozen=True)
class Sizes:
    """Most vectors that each kind of index is for; the reasons are in BENCHMARKS.md, dense."""

    flat: int = 50_000
    """7 ms on one core at dimension 384, and nothing to build."""
    hnsw: int = 500_000
    """0.5 GB, and 3 minutes to build on one core, at dimension 384."""
    gpu: int = 2_000_000
    """1.5 GB of a GPU at dimension 384."""

    def kind(self, count: int) -> Kind:
        """What `count` vectors are best kept in, on this machine."""
        if count <= self.flat:
            return Kind.FLAT
        if has_gpu() and count <= self.gpu:
            return Kind.GPU
        return Kind.HNSW if count <= self.hnsw else Kind.IVFPQ

    def fit(self, kind: Kind, count: int) -> bool:
        """Whether `kind` may stay: another must be better for half as many and twice as many too.

        So a collection at a bound is not built again with every document.
        """
        return kind in {self.kind(count), self.kind(2 * count)}


def library() -> Any:
    """FAISS, imported when first used: who only writes to the log needs none."""
    import faiss

    return faiss


def compute_alone() -> None:
    """Let FAISS start no helper threads for the calling thread; others keep their setting.

    One question gains nothing from them. But FAISS and torch share OpenMP in a process, and a team
    of threads for every task thread made the language model's decoding 1.5 to 1.9 times slower on
    2 cores, long after the search had ended (BENCHMARKS.md, threads).
    """
    faiss = library()
    faiss.omp_set_num_threads(1)


def has_gpu() -> bool:
    """Whether the FAISS that is installed can compute on a GPU of this machine."""
    faiss = library()
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def training_size(kind: Kind, count: int) -> int:
    """Vectors that an index for `count` of them must be shown before it takes any."""
    if kind is not Kind.IVFPQ:
        return 0
    return min(count, max(POINTS * _lists(count), 8 * BYTE_POINTS))


def empty(kind: Kind, dimension: int, sample: Vectors | None = None, *, count: int = 0) -> Any:
    """An index that numbers what is added to it from 0.

    Args:
        dimension: numbers per vector.
        sample: unit vectors (`training_size`, dimension), for a kind that needs them.
        count: vectors that will be added, about.
    """
    faiss = library()
    inner = faiss.METRIC_INNER_PRODUCT
    half = faiss.ScalarQuantizer.QT_fp16
    if kind is Kind.FLAT:
        return faiss.IndexScalarQuantizer(dimension, half, inner)
    if kind is Kind.GPU:
        return faiss.IndexFlatIP(dimension)
    if kind is Kind.HNSW:
        index = faiss.IndexHNSWSQ(dimension, half, LINKS, inner)
        index.hnsw.efConstruction = BUILD_LOOK
        return index
    if sample is None or not len(sample):
        raise ValueError("an inverted file needs vectors to learn its lists from")
    return _trained(dimension, sample, min(_lists(count), max(1, len(sample) // POINTS)))


def nearest(
    kind: Kind, index: Any, vector: Vectors, limit: int, alive: NDArray[np.bool_] | None
) -> tuple[Vectors, NDArray[np.int64]]:
    """Cosines and positions of the best, at most `limit`, best first.

    Args:
        index: made by `empty`.
        vector: (dimension,), length one.
        alive: (vectors,), which of them count; None for all.
    """
    faiss = library()
    options: dict[str, Any] = {}
    if alive is not None:
        bits = np.packbits(alive, bitorder="little")
        options["sel"] = faiss.IDSelectorBitmap(bits)
    if kind is Kind.HNSW:
        params = faiss.SearchParametersHNSW(efSearch=max(LOOK, limit), **options)
    elif kind is Kind.IVFPQ:
        params = faiss.SearchParametersIVF(nprobe=PROBES, **options)
    else:
        params = faiss.SearchParameters(**options) if options else None
    cosines, positions = index.search(vector[None, :], limit, params=params)
    found = positions[0] >= 0
    return cosines[0][found], positions[0][found]


def gpu_copy(kind: Kind, index: Any) -> Any | None:
    """The same index on the first GPU, in float16; None where it is not for a GPU."""
    if kind is not Kind.GPU or not has_gpu():
        return None
    faiss = library()
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True
    return faiss.index_cpu_to_gpu(_resources(), 0, index, options)


@lru_cache(maxsize=1)
def _resources() -> Any:
    """One for the process; FAISS would set 1.5 GB of the GPU aside, which the models need."""
    faiss = library()
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(GPU_SCRATCH_BYTES)
    return resources


def _lists(count: int) -> int:
    return max(1, int(LISTS * math.sqrt(count)))


def _trained(dimension: int, sample: Vectors, lists: int) -> Any:
    faiss = library()
    parts = dimension // NUMBERS_PER_BYTE if dimension % NUMBERS_PER_BYTE == 0 else dimension
    bits = 8 if len(sample) >= BYTE_POINTS else max(1, int(math.log2(max(2, len(sample) / 39))))
    coarse = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFPQ(coarse, dimension, lists, parts, bits, faiss.METRIC_INNER_PRODUCT)
    index.train(sample)
    return index
