"""What the pipeline needs of an index, and no more. Adapters stand beside this file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from clara.types import Hit, PassageText

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def best(scores: Mapping[UUID, float], limit: int) -> list[Hit]:
    """The best hits of some scores, in the order every search gives them."""
    hits = [Hit(passage, score) for passage, score in scores.items()]
    return sorted(hits, key=lambda hit: (-hit.score, hit.passage_id))[:limit]


class LexicalIndex(Protocol):
    """BM25 over title and text, one collection at a time.

    A collection has one active generation, which is the one meant where none is named. Others are
    filled beside it, and put in its place by `switch`.

    Every method raises IndexUnavailable when the engine does not answer in time.
    """

    def put(
        self,
        collection: UUID,
        passages: Sequence[PassageText],
        *,
        generation: int | None = None,
    ) -> None:
        """Write passages by id; writing an id twice replaces it. Searchable when this returns."""
        ...

    def delete(
        self, collection: UUID, passages: Iterable[UUID], *, generation: int | None = None
    ) -> None:
        """Remove by id, from every generation where none is named; ids that are not there are no
        error."""
        ...

    def search(
        self, collection: UUID, text: str, *, limit: int, only: Collection[UUID] | None = None
    ) -> list[Hit]:
        """Best first, at most `limit`; [] where no word of `text` occurs or nothing is indexed.

        With `only`, as if no other passage were there, but with the scores of all.
        """
        ...

    def drop(self, collection: UUID) -> None:
        """Forget a whole collection with all its generations; one that is not there is no error."""
        ...

    def count(self, collection: UUID, *, generation: int | None = None) -> int:
        """Passages held."""
        ...

    def held(self, collection: UUID, document: UUID | None = None) -> set[UUID]:
        """Ids of the passages held by any generation, of one document or of all."""
        ...

    def make(self, collection: UUID, generation: int) -> None:
        """An empty generation, where there is none of that number."""
        ...

    def generations(self, collection: UUID) -> dict[int, bool]:
        """Generations there are, smallest first, and whether each is the active one."""
        ...

    def switch(self, collection: UUID, generation: int) -> None:
        """Make a generation the active one: every search finds the one before, or this one.

        Raises:
            IndexMismatch: there is no such generation.
        """
        ...

    def drop_generation(self, collection: UUID, generation: int) -> None:
        """Delete one generation; one that is not there is no error.

        Raises:
            IndexMismatch: it is the active one.
        """
        ...


class VectorEncoder(Protocol):
    """What makes the vectors of a dense index."""

    name: str
    """Vectors of two encoders are never compared."""
    dimension: int

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (texts, dimension) of passages, in the order of the texts."""
        ...

    def encode_questions(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (questions, dimension), to compare with those of passages."""
        ...


class DenseIndex(Protocol):
    """Nearest vectors by cosine, one collection at a time.

    Every method raises IndexUnavailable when what it stands on does not answer.
    """

    dimension: int

    def put(self, collection: UUID, vectors: Mapping[UUID, NDArray[np.float32]]) -> None:
        """Write unit vectors (dimension,) by passage id; writing an id twice replaces it."""
        ...

    def delete(self, collection: UUID, passages: Iterable[UUID]) -> None:
        """Remove by id; ids that are not there are no error."""
        ...

    def search(
        self,
        collection: UUID,
        vector: NDArray[np.float32],
        *,
        limit: int,
        only: Collection[UUID] | None = None,
    ) -> list[Hit]:
        """Best first, at most `limit`, cosine in [-1, 1]. Sees every write committed before.

        With `only`, exactly the best of those, whatever the kind of index.
        """
        ...

    def scores(
        self, collection: UUID, vector: NDArray[np.float32], passages: Sequence[UUID]
    ) -> dict[UUID, float]:
        """Exact cosine of given passages; those not in the index are left out."""
        ...

    def drop(self, collection: UUID) -> None:
        """Forget a whole collection."""
        ...

    def count(self, collection: UUID) -> int:
        """Vectors held."""
        ...

    def held(self, collection: UUID) -> set[UUID]:
        """Ids of the passages that have a vector."""
        ...


class LatentStore(Protocol):
    """Latents by passage and fingerprint."""

    def put(self, fingerprint: str, blocks: Mapping[UUID, Tensor]) -> None:
        """Write blocks (rows, width), kept as bfloat16 or smaller; writing twice replaces.

        A passage that was deleted meanwhile is left out: its latent would belong to nothing.
        """
        ...

    def get(self, fingerprint: str, passages: Sequence[UUID]) -> dict[UUID, Tensor]:
        """Blocks (rows, width) in bfloat16 on the CPU, for those passages that have a sound one.

        A block that fails its checksum is left out, logged, and deleted, so that it is made anew.
        """
        ...

    def as_text(self, fingerprint: str, passages: Sequence[UUID]) -> set[UUID]:
        """Those of some passages whose block an audit found to lose too much: read their words.

        What an audit finds may take a minute to be known here.
        """
        ...
