"""A sentence encoder that reads a question and a passage together, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from clara.answerability.files import encoder_hash, load
from clara.answerability.network import ROLE, pairs_of, read
from clara.model.lora import merged
from clara.retrieval.encoder import SentenceEncoder, batches

BATCH_TOKENS = 8192


class ReadingEncoder(SentenceEncoder):
    """SentenceEncoder and PairEncoder: its vectors are those of the encoder alone.

    The adapter is merged into a copy of the blocks; embeddings are shared. Safe between threads.

    Args:
        source: folder or Hub name of the encoder.
        adapter: folder that `clara train answerability` wrote.
        device: a torch device.
        dtype: of the weights, as for `SentenceEncoder`.
    Raises:
        ModelMissing: see there.
        InvalidCheckpoint: the adapter is damaged, or was trained over another encoder.
    """

    def __init__(
        self,
        source: str | Path,
        adapter: Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(source, device=device, dtype=dtype)
        kept = load(adapter, encoder_hash(source))
        self._heads = kept.heads_over(self.dimension).to(self._device).eval()
        self._reading = merged(self._model, kept.adapter, role=ROLE)
        self._most = kept.max_tokens
        self.least_answerability = kept.least

    @torch.inference_mode()
    def answerability(self, question: str, passages: Sequence[str]) -> list[float]:
        """Of each passage, 0 to 1: how far it looks as if it answered the question.

        No probability: what it was trained on had fewer answers than what is asked in service.
        """
        with self._lock:
            pairs = pairs_of(
                self._tokenizer, [question] * len(passages), passages, max_tokens=self._most
            )
        found = [0.0] * len(pairs)
        for some in batches([len(pair.ids) for pair in pairs], BATCH_TOKENS):
            answers, _ = read(self._reading, self._heads, [pairs[at] for at in some])
            for at, share in zip(some, answers.sigmoid().tolist(), strict=True):
                found[at] = share
        return found


def open_encoder(
    source: str | Path, adapter: Path | None, *, device: str = "cpu"
) -> SentenceEncoder:
    """The sentence encoder in `source`, which reads pairs where there is an adapter for it.

    Raises:
        ModelMissing, InvalidCheckpoint: as `ReadingEncoder`.
    """
    if adapter is None:
        return SentenceEncoder(source, device=device)
    return ReadingEncoder(source, adapter, device=device)
