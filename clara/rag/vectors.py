"""Vectors of passages seen lately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clara.library.cache import TextCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clara.rag.search import Encoder


class KeptVectors:
    """Encoder: asks another one only for what it has not encoded lately.

    A question's passages are ranked by their vectors and then compared with it again, and the next
    question mostly comes with the same documents.

    Args:
        encoder: of sentences.
        max_bytes: of the vectors kept between two calls; 0 keeps none.
    """

    def __init__(self, encoder: Encoder, max_bytes: int) -> None:
        self.encoder = encoder
        """The other one, for what else it can read."""
        self._kept: TextCache[NDArray[np.float32]] = TextCache(max_bytes)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (texts, dimension)."""
        found = self._kept.of(
            texts, lambda missing: [row.copy() for row in self.encoder.encode(missing)]
        )
        return np.stack(found)
