"""What indexing needs, by collection: passages are cut for the checkpoint that answers for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from sqlalchemy import select

from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Generation, GenerationStatus
from clara.errors import ModelMissing, UnknownCollection
from clara.model.hub import local_folder
from clara.passages import FastTokenizer
from clara.pipeline.asking import Answering
from clara.pipeline.index import Indexing
from clara.pipeline.reading import Tokenizer
from clara.retrieval.ports import DenseIndex, LexicalIndex
from clara.serving.encoding import EncoderOnEngine
from clara.settings import Settings
from workers.loaded import Loaded
from workers.weights import bases


@dataclass(frozen=True)
class Reads:
    """How a checkpoint reads: all that splitting needs of it."""

    base: Path
    """Folder with its tokenizer."""
    doc_max_length: int


@dataclass(frozen=True)
class Vectors:
    """A dense index and what makes its vectors."""

    dense: DenseIndex
    encoder: EncoderOnEngine


@dataclass(frozen=True)
class Indexings:
    """Makes an `Indexing` for a collection."""

    config: Settings
    open_db: OpenDb
    lexical: LexicalIndex
    vectors: Vectors | None
    """The same for all collections; None where they are made by the checkpoint itself."""
    loaded: Callable[[], Loaded]
    """Checkpoints, only asked for where those make the vectors."""
    default: Callable[[], Reads]
    """Of a collection that has no generation yet."""

    def of(self, collection: UUID | None) -> Indexing:
        """For the documents of one collection; None for what is only taken out of the indexes.

        One that was deleted meanwhile is treated like a new one.

        Raises:
            ClaraError: the checkpoint's tokenizer, or where needed its models, cannot be loaded.
        """
        if self.vectors is None:
            ready = self._answering(collection)
            length = ready.models.checkpoint.config.doc_max_length
            return self._made(Vectors(ready.dense, ready.encoder), ready.tokenizer, length)
        reads = self._reads(collection)
        return self._made(self.vectors, tokenizer(reads.base), reads.doc_max_length)

    def _made(self, vectors: Vectors, counter: Tokenizer, length: int) -> Indexing:
        return Indexing(
            open_db=self.open_db,
            lexical=self.lexical,
            dense=vectors.dense,
            encoder=vectors.encoder,
            tokenizer=counter,
            doc_max_length=length,
        )

    def _answering(self, collection: UUID | None) -> Answering:
        loaded = self.loaded()
        try:
            return loaded.active(collection)[0] if collection else loaded.default()
        except UnknownCollection:
            return loaded.default()

    def _reads(self, collection: UUID | None) -> Reads:
        with self.open_db() as db:
            row = db.scalar(
                select(Checkpoint)
                .join(Generation, Generation.checkpoint_id == Checkpoint.id)
                .where(
                    Generation.collection_id == collection,
                    Generation.status == GenerationStatus.ACTIVE,
                )
            )
        return reads(row, self.config) if row else self.default()


def reads(row: Checkpoint, config: Settings) -> Reads:
    """By a checkpoint's row, without its weights.

    Raises:
        ModelMissing: its base is not here.
    """
    refused: ModelMissing | None = None
    for base in bases(row, config):
        try:
            return Reads(local_folder(base), int(row.config["doc_max_length"]))
        except ModelMissing as error:
            refused = refused or error
    assert refused is not None  # noqa: S101 - a row names a base
    raise refused


@lru_cache(maxsize=8)
def tokenizer(base: Path) -> FastTokenizer:
    """The tokenizer in a base's folder, read once."""
    return FastTokenizer.from_folder(base)
