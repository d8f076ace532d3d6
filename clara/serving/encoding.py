"""An encoder of dense vectors that computes where everything else does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clara.serving.engine import Engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clara.retrieval.ports import VectorEncoder


@dataclass(frozen=True)
class EncoderOnEngine:
    """Encodes on the engine thread, before bulk work: a question waits for it."""

    encoder: VectorEncoder
    engine: Engine

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (texts, dimension) of passages."""
        return self.engine.submit(lambda: self.encoder.encode(texts), urgent=True).result()

    def encode_questions(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (questions, dimension)."""
        encode = self.encoder.encode_questions
        return self.engine.submit(lambda: encode(questions), urgent=True).result()
