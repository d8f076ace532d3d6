"""Latents of an evaluation's passages: each is made once, and kept while a record needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from torch import Tensor

from clara.evaluation.progress import Progress, untold
from clara.model.compressor import Compressor

STEP = 256
"""Passages between two reports of progress."""


class PassageLatents:
    """Compresses passages when they are first needed and forgets them after the last use."""

    def __init__(
        self, compressor: Compressor, uses: Iterable[Sequence[str]], progress: Progress = untold
    ) -> None:
        """Take note of what will be needed.

        Args:
            compressor: makes the latents.
            uses: the different passages of each record to come.
            progress: told of `passages` as they are compressed.
        """
        self._compressor = compressor
        self._left = Counter(text for texts in uses for text in set(texts))
        self._made: dict[str, Tensor] = {}
        self._progress = progress
        self._total, self._done = len(self._left), 0

    def need(self, texts: Iterable[str]) -> None:
        """Compress those of `texts` that are not there; similar lengths go together."""
        missing = sorted({text for text in texts if text not in self._made}, key=_length)
        for start in range(0, len(missing), STEP):
            part = missing[start : start + STEP]
            self._made.update(zip(part, self._compressor.compress(part), strict=True))
            self._done += len(part)
            self._progress("passages", self._done, self._total)

    def of(self, texts: Sequence[str]) -> list[Tensor]:
        """Latents (rows, width) of texts that were needed."""
        return [self._made[text] for text in texts]

    def release(self, texts: Iterable[str]) -> None:
        """One record is done with its passages."""
        for text in set(texts):
            self._left[text] -= 1
            if self._left[text] <= 0:
                self._made.pop(text, None)


def _length(text: str) -> tuple[int, str]:
    return len(text), text
