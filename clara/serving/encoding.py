"""An encoder of dense vectors that computes where everything else does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clara.answerability.port import PairEncoder, unanswered
from clara.mentions import TokenEncoder, TokenStates
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

    @property
    def shows_tokens(self) -> bool:
        """Whether there are states of tokens; means of latents have none."""
        return isinstance(self.encoder, TokenEncoder)

    def token_states(self, texts: Sequence[str]) -> list[TokenStates]:
        """Of every token of each text.

        Raises:
            TypeError: the encoder shows none.
        """
        encoder = self.encoder
        if not isinstance(encoder, TokenEncoder):
            raise TypeError(f"{encoder.name} shows no tokens")
        return self.engine.submit(lambda: encoder.token_states(texts), urgent=True).result()

    def unanswered(self, question: str, read: Sequence[str], chosen: float | None) -> bool:
        """Whether no passage looks as if it answered a question; False where none can tell.

        Args:
            question: any text.
            read: passages.
            chosen: bound; None takes the one measured with the encoder.
        """
        encoder = self.encoder
        if not isinstance(encoder, PairEncoder):
            return False
        work = self.engine.submit(lambda: unanswered(question, read, encoder, chosen), urgent=True)
        return work.result()
