"""Vectors made of latents: written with them, once, and of no passage that is gone."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from clara.db.connect import OpenDb
from clara.documents import delete_documents
from clara.model.models import Models
from clara.pipeline.asking import Answering
from clara.pipeline.compress import Compressing, compress_collection
from clara.pipeline.index import Indexing
from clara.pipeline.latent_vectors import add_vectors
from clara.pipeline.retrieve import retrieve
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.latent_encoder import LatentEncoder
from clara.retrieval.latents import PostgresLatents
from clara.serving.encoding import EncoderOnEngine
from clara.types import Mode, SourceDocument
from tests.clara.pipeline.conftest import DOC_MAX_LENGTH, Ask, Write, index

TEXTS = ["Tea came from Canton.", "Bees dance on the comb."]


@pytest.fixture
def of_latents(models: Models) -> LatentEncoder:
    """In place of the sentence encoder."""
    roles = (models.compressor, models.reasoner)
    return LatentEncoder(*roles, fingerprint=models.fingerprint, width=models.width)


@pytest.fixture
def dense(db: OpenDb, of_latents: LatentEncoder) -> FaissIndex:
    return FaissIndex(db, encoder=of_latents.name, dimension=of_latents.dimension)


@pytest.fixture
def compressing(answering: Answering, dense: FaissIndex) -> Compressing:
    return Compressing(
        open_db=answering.open_db,
        latents=answering.latents,
        compressor=answering.models.compressor,
        engine=answering.engine,
        tokenizer=answering.tokenizer,
        fingerprint=answering.fingerprint,
        doc_max_length=DOC_MAX_LENGTH,
        on_processor=True,
        vectors=dense,
    )


def compress(collection: UUID, compressing: Compressing) -> None:
    compress_collection(
        collection, compressing, budget_s=60, on_batch=lambda _: None, stopped=lambda: False
    )


def test_a_generation_that_is_made_beside_another_is_found_by_its_own_vectors(
    write: Write,
    indexing: Indexing,
    answering: Answering,
    compressing: Compressing,
    of_latents: LatentEncoder,
    dense: FaissIndex,
    collection: UUID,
    ask: Ask,
) -> None:
    """Indexed by another encoder, then compressed for this checkpoint."""
    index(write(*map(SourceDocument, TEXTS)), indexing)
    assert dense.count(collection) == 0
    compress(collection, compressing)
    assert dense.count(collection) == 2
    own = replace(answering, dense=dense, encoder=EncoderOnEngine(of_latents, answering.engine))
    found = retrieve(ask("Who dances?", mode=Mode.LATENT), own)
    assert found.degraded == []
    assert all(one.read.candidate.dense_rank for one in found.considered)
    (best,) = [one.read for one in found.considered if one.read.candidate.dense_rank == 1]
    (vector,) = own.encoder.encode_questions(["Who dances?"])
    assert best.candidate.dense == pytest.approx(max(own.encoder.encode(TEXTS) @ vector), abs=2e-3)


def test_vectors_that_are_there_are_not_written_again(
    db: OpenDb,
    write: Write,
    indexing: Indexing,
    compressing: Compressing,
    of_latents: LatentEncoder,
    dense: FaissIndex,
    collection: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As ingesting leaves them, where this is the checkpoint that answers."""
    own = replace(indexing, dense=dense, encoder=EncoderOnEngine(of_latents, compressing.engine))
    index(write(SourceDocument(TEXTS[0])), own)
    monkeypatch.setattr(dense, "put", lambda *_: 1 / 0)
    compress(collection, compressing)
    assert len(PostgresLatents(db).get(compressing.fingerprint, list(dense.held(collection)))) == 1


def test_nothing_is_left_of_a_passage_that_is_deleted_meanwhile(
    db: OpenDb,
    write: Write,
    indexing: Indexing,
    compressing: Compressing,
    dense: FaissIndex,
    collection: UUID,
) -> None:
    """Its purge came before the writing."""
    stays, goes = write(*map(SourceDocument, TEXTS))
    index([stays, goes], indexing)
    blocks = compressing.engine.compress(compressing.compressor, TEXTS)
    passages = sorted(indexing.dense.held(collection))
    with db.begin() as session:
        gone = delete_documents(session, [goes])
        assert gone
    add_vectors(
        collection,
        dict(zip(passages, blocks, strict=True)),
        dense,
        open_db=db,
        engine=compressing.engine,
    )
    assert dense.count(collection) == 1
