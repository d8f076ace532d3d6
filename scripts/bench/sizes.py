"""How much is measured: enough for a figure, or just enough to see that everything runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Of everything that is measured."""

    rounds: int
    """Times every side takes its turn."""
    passages: int
    """Compressed by each side in one round."""
    words: tuple[int, int]
    """Fewest and most words of a passage; evenly spread, so the mean lies in the middle."""
    plain_batch: int
    """Passages the plain way puts into one batch where it may choose."""
    passage_tokens: int
    """Of the passages read for an answer."""
    read: tuple[int, ...]
    """Passages read for an answer."""
    candidates: int
    """Passages chosen from."""
    top_k: int
    """Passages chosen."""
    many: int
    """Passages whose compression must not take more memory than one batch."""
    many_words: tuple[int, int]
    """Like `words`: a batch has the same size whatever the passages, so short ones do."""
    together: int
    """Questions answered as one batch."""
    new_tokens: int
    """Per answer, where decoding is measured."""
    product: int
    """Rows and columns of the matrices whose product stands for the machine."""
    compile_s: float
    """Seconds torch.compile may take to get ready; 0: not tried."""


FULL = Sizes(
    rounds=3,
    passages=16,
    words=(40, 160),
    plain_batch=4,
    passage_tokens=256,
    read=(5, 20),
    candidates=20,
    top_k=5,
    many=1000,
    many_words=(10, 30),
    together=8,
    new_tokens=16,
    product=2048,
    compile_s=60,
)
"""About eight minutes on two cores."""

GPU = Sizes(
    rounds=7,
    passages=512,
    words=(40, 160),
    plain_batch=64,
    passage_tokens=256,
    read=(5, 20, 30),
    candidates=20,
    top_k=5,
    many=10_000,
    many_words=(40, 160),
    together=64,
    new_tokens=64,
    product=8192,
    compile_s=120,
)
"""What fills a GPU; thirty passages as text all but fill the context of SmolLM2."""

QUICK = Sizes(
    rounds=2,
    passages=5,
    words=(10, 40),
    plain_batch=2,
    passage_tokens=64,
    read=(2, 4),
    candidates=5,
    top_k=2,
    many=20,
    many_words=(10, 30),
    together=3,
    new_tokens=4,
    product=256,
    compile_s=0,
)
"""Says nothing about speed."""


def sizes_for(device: str, *, quick: bool) -> Sizes:
    """What to measure on a device."""
    if quick:
        return QUICK
    return GPU if device.startswith("cuda") else FULL
