"""What makes the vectors of an evaluated search: sentence encoder, or a checkpoint's latents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clara.evaluation.fitting import fit
from clara.evaluation.progress import Progress, untold
from clara.model.models import Models
from clara.pipeline.reading import reading
from clara.retrieval.latent_encoder import mean_rows
from clara.retrieval.ports import VectorEncoder, best
from clara.types import Hit, PassageText

Vectors = NDArray[np.float32]

STEP = 1_024
"""Passages between two reports of progress."""


class ExactVectors:
    """Nearest vectors of a few passages or a million, in memory, by comparing every one.

    Args:
        ids: passages.
        vectors: (passages, dimension), of length one.
    """

    def __init__(self, ids: Sequence[UUID], vectors: Vectors) -> None:
        self._ids, self._vectors = ids, vectors
        self._at = {passage: at for at, passage in enumerate(ids)}

    def search(
        self, vector: Vectors, *, limit: int, only: frozenset[UUID] | None = None
    ) -> list[Hit]:
        """Best first, at most `limit`, cosine in [-1, 1]."""
        if only is not None:
            return best(self.scores(vector, list(only)), limit)
        cosines = self._vectors @ vector
        if limit < len(cosines):
            bound = np.partition(cosines, -limit)[-limit]
            found = np.flatnonzero(cosines >= bound)  # more than `limit` where some are equal
        else:
            found = np.arange(len(cosines))
        return best({self._ids[int(at)]: float(cosines[at]) for at in found}, limit)

    def scores(self, vector: Vectors, passages: Sequence[UUID]) -> dict[UUID, float]:
        """Cosines of given passages; those without a vector are left out."""
        known = [passage for passage in passages if passage in self._at]
        found = self._vectors[[self._at[passage] for passage in known]] @ vector
        return {passage: float(one) for passage, one in zip(known, found, strict=True)}


class Embedding(Protocol):
    """Makes vectors of one space."""

    @property
    def name(self) -> str:
        """Of that space."""
        ...

    def passages(self, passages: Sequence[PassageText], progress: Progress) -> Vectors:
        """Unit vectors (passages, dimension); `progress` is told of `passages`."""
        ...

    def questions(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (questions, dimension)."""
        ...


class EncoderEmbedding:
    """By a sentence encoder, which reads as much of a text as it takes."""

    def __init__(self, encoder: VectorEncoder) -> None:
        self.name = encoder.name
        self._encoder = encoder

    def passages(self, passages: Sequence[PassageText], progress: Progress = untold) -> Vectors:
        """Unit vectors (passages, dimension)."""
        found = [np.zeros((0, self._encoder.dimension), np.float32)]
        for start in range(0, len(passages), STEP):
            part = passages[start : start + STEP]
            found.append(self._encoder.encode([reading(one.title, one.text) for one in part]))
            progress("passages", start + len(part), len(passages))
        return np.concatenate(found)

    def questions(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (questions, dimension)."""
        return self._encoder.encode_questions(texts)


class Blocks:
    """Latents of passages, each made when it is first needed, and kept; and those of questions.

    In memory: 18 KiB a passage at 16 rows of 576 numbers in bfloat16. Of a text that is longer than
    one pass takes the beginning is read.

    Args:
        models: one checkpoint; used in the calling thread.
        passages: everything that may be needed.
    """

    def __init__(self, models: Models, passages: Iterable[PassageText]) -> None:
        self.fingerprint, self.width = models.fingerprint, models.width
        self._models = models
        self._texts = {one.id: reading(one.title, one.text) for one in passages}
        self._made: dict[UUID, Tensor] = {}
        self.cut = 0
        """Passages of which only the beginning was read."""

    def need(self, passages: Iterable[UUID]) -> None:
        """Compress those that are not there yet."""
        missing = [passage for passage in passages if passage not in self._made]
        texts = [self._texts[passage] for passage in missing]
        read = fit(self._models.tokens, texts)
        self.cut += sum(read[text] != text for text in texts)
        blocks = self._models.compressor.compress([read[text] for text in texts])
        self._made.update(zip(missing, blocks, strict=True))

    def of(self, passages: Sequence[UUID]) -> list[Tensor]:
        """Latents (rows, width) of passages that were needed."""
        return [self._made[passage] for passage in passages]

    def queries(self, texts: Sequence[str]) -> list[Tensor]:
        """Latents (rows, width) of questions."""
        read = fit(self._models.tokens, texts)
        return self._models.reasoner.encode([read[text] for text in texts])

    def scores(self, query: Tensor, passages: Sequence[UUID]) -> list[float]:
        """Exact cosine of one question with each of some passages that were needed."""
        if not passages:
            return []
        found: list[float] = self._models.score(query, self.of(passages)).tolist()
        return found


class LatentEmbedding:
    """By the mean row of a checkpoint's latents, as `clara.retrieval.latent_encoder` has it.

    They are made and kept by `blocks`, so that ranking by them compresses nothing again.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.name = f"latents:{blocks.fingerprint}"
        self._blocks = blocks

    def passages(self, passages: Sequence[PassageText], progress: Progress = untold) -> Vectors:
        """Unit vectors (passages, width)."""
        for start in range(0, len(passages), STEP):
            part = passages[start : start + STEP]
            self._blocks.need([one.id for one in part])
            progress("passages", start + len(part), len(passages))
        return mean_rows(self._blocks.of([one.id for one in passages]), self._blocks.width)

    def questions(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (questions, width)."""
        return mean_rows(self._blocks.queries(texts), self._blocks.width)


class KeptEmbedding:
    """Another one, whose vectors of passages are kept in a folder and read the next time.

    A file is named by a hash of the space and of all words, so that it fits or is not there.
    """

    def __init__(self, embedding: Embedding, folder: Path) -> None:
        self.name = embedding.name
        self._embedding, self._folder = embedding, folder

    def passages(self, passages: Sequence[PassageText], progress: Progress = untold) -> Vectors:
        """Unit vectors (passages, dimension)."""
        digest = hashlib.sha256(self.name.encode())
        for one in passages:
            text = reading(one.title, one.text).encode("utf-8", "surrogatepass")
            digest.update(b"%d:%s" % (len(text), text))
        path = self._folder / f"{digest.hexdigest()[:32]}.npy"
        with suppress(OSError, ValueError):  # it is not there, or cut short
            kept: Vectors = np.load(path, allow_pickle=False)
            return kept
        made = self._embedding.passages(passages, progress)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{uuid4().hex}.npy")
        np.save(part, made)
        part.replace(path)
        return made

    def questions(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (questions, dimension), made each time."""
        return self._embedding.questions(texts)


def embedding_of(
    encoder: VectorEncoder | None, blocks: Blocks | None, kept: Path | None = None
) -> Embedding:
    """By the encoder where there is one, else by the latents; `kept` is a folder to keep them in.

    Raises:
        ValueError: there is neither.
    """
    made: Embedding
    if encoder is not None:
        made = EncoderEmbedding(encoder)
    elif blocks is not None:
        made = LatentEmbedding(blocks)
    else:
        raise ValueError("vectors are made by an encoder or by a checkpoint; there is neither")
    return KeptEmbedding(made, kept) if kept else made
