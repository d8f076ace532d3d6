"""Memory: compressing many passages must take little more than the weights and one batch.

Every figure is from a fresh process. Weights are the bytes of all tensors of all roles, each
counted once. One batch is what the peak grows by over the loaded process when the largest of the
planned batches runs once, the working memory of the libraries included. The peak is that of the
process over what it had before loading.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psutil
import torch
from torch import Tensor

from clara.model.compressor import Batch, Compressor
from clara.model.models import Models
from clara.model.pooled import PooledKind

from .bench import Bench
from .children import in_child
from .report import NAME, Report
from .weights import KINDS, Setup

TARGET = 1.3
MIB = 2**20
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
RESET_PEAK = "5"
"""What the kernel wants to be told (proc(5))."""


@dataclass(frozen=True)
class Used:
    """Of one process, in bytes."""

    weights: int
    """All roles."""
    own_weights: int
    """The compressor's."""
    loaded: int
    """By loading."""
    peak: int
    """By loading, and the most that compressing took on top."""
    latents: int
    """The result."""

    @property
    def growth(self) -> int:
        """By compressing."""
        return self.peak - self.loaded


def measure(bench: Bench) -> list[Report]:
    """One table per kind; none where the system does not tell a process its peak."""
    if bench.device.type == "cpu" and not CLEAR.exists():
        return [Report("memory", "Memory: not measured, for want of /proc")]
    sizes = bench.sizes
    texts = bench.corpus.passages(sizes.many, sizes.many_words, bench.memory.tokens)
    return [_measure(bench, kind, texts) for kind in KINDS]


def used(setup: Setup, kind: str, texts: Sequence[str], *, all_of_them: bool) -> Used:
    """Load one kind and compress, in this process.

    Args:
        setup: what to load.
        kind: of latents.
        texts: passages.
        all_of_them: or only the largest of the batches they make.
    """
    torch.set_num_threads(setup.threads)
    read = setup.checkpoint(kind)  # adapters are merged: what is kept of them serves nothing
    before = _now(setup.device)
    models = setup.load(read)
    loaded = _now(setup.device)
    plan = models.compressor.plan(texts)
    _reset_peak(setup.device)
    if all_of_them:
        latents = models.compressor.compress(texts)
    else:
        latents = models.compressor.run(max(plan, key=_places))
    return Used(
        weights=_bytes(_tensors(models)),
        own_weights=_bytes(_own_tensors(models.compressor)),
        loaded=loaded - before,
        peak=_peak(setup.device) - before,
        latents=_bytes(latents),
    )


def _measure(bench: Bench, kind: str, texts: Sequence[str]) -> Report:
    one, many = (
        in_child(used, None, bench.setup, kind, texts, all_of_them=every) for every in (False, True)
    )
    whole = many.peak / (many.weights + one.growth)
    alone = (many.own_weights + many.growth) / (many.own_weights + one.growth)
    tokens = sum(bench.memory.tokens.count(texts)) / len(texts)
    report = Report(
        f"memory {kind}", f"Memory: {len(texts):,} passages of {tokens:.0f} tokens, {kind}"
    )
    for name, size in (
        ("weights, all roles", many.weights),
        ("  loading them took", many.loaded),
        ("  the compressor's own", many.own_weights),
        ("one batch took on top", one.growth),
        ("all passages took on top", many.growth),
        ("  their latents", many.latents),
    ):
        report.say(f"{name:<{NAME}}{size / MIB:10.1f} MiB")
        report.data[name.strip()] = size
    for name, found in (
        ("peak / (weights + one batch)", whole),
        ("  with the compressor's weights", alone),
    ):
        met = "met" if found <= TARGET else "missed"
        report.say(f"{name:<{NAME}}{found:10.3f} times         target at most {TARGET}: {met}")
        report.data[name.strip()] = float(f"{found:.4g}")
    return report


def _places(batch: Batch) -> int:
    return len(batch.ids) * max(map(len, batch.ids))


def _own_tensors(compressor: Compressor) -> Iterable[Tensor]:
    kind = compressor.kind
    if isinstance(kind, PooledKind) and not kind.contextual:
        return [kind.embedding, *kind.pooling.tensors().values()]
    return chain(compressor.trunk.parameters(), compressor.trunk.buffers())


def _tensors(models: Models) -> Iterable[Tensor]:
    generator = models.generator
    trunks = (models.compressor.trunk, models.reasoner.trunk)
    every = (*trunks, generator.model, generator.text_model)
    return chain(
        _own_tensors(models.compressor),
        *(part for model in every for part in (model.parameters(), model.buffers())),
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Each tensor once, however many roles share it."""
    sizes = {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
    return sum(sizes.values())


def _now(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    else:
        CLEAR.write_text(RESET_PEAK)


def _peak(device: str) -> int:
    """Since the last reset; of the process's own pages, not of a parent it was started by."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    (line,) = (one for one in STATUS.read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
