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

    Every method raises IndexUnavailable when the engine does not answer in time.
    """

    def put(self, collection: UUID, passages: Sequence[PassageText]) -> None:
        """Write passages by id; writing an id twice replaces it. Searchable when this returns."""
        ...

    def delete(self, collection: UUID, passages: Iterable[UUID]) -> None:
        """Remove by id; ids that are not there are no error."""
        ...

    def search(
        self, collection: UUID, text: str, *, limit: int, only: Collection[UUID] | None = None
    ) -> list[Hit]:
        """Best first, at most `limit`; [] where no word of `text` occurs or nothing is indexed.

        With `only`, as if no other passage were there, but with the scores of all.
        """
        ...

    def drop(self, collection: UUID) -> None:
        """Forget a whole collection; one that is not there is no error."""
        ...

    def count(self, collection: UUID) -> int:
        """Passages held."""
        ...

    def held(self, collection: UUID, document: UUID | None = None) -> set[UUID]:
        """Ids of the passages held, of one document or of all."""
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
