"""Builds what a worker process needs, once, at its start. Model code is imported inside only."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import select

from clara import registry
from clara.db.connect import OpenDb, connect, open_db
from clara.db.tables import Collection
from clara.default_models import BASE, SENTENCE_ENCODER, DefaultModel, is_there
from clara.errors import CheckpointMismatch, ModelMissing
from clara.passages import FastTokenizer
from clara.pipeline.asking import Answering, Limits
from clara.pipeline.compress import Compressing, lacking
from clara.pipeline.index import Indexing
from clara.pipeline.reading import Tokenizer
from clara.registry import Inspected
from clara.retrieval.ports import DenseIndex
from clara.serving.encoding import EncoderOnEngine
from clara.serving.engine import Engine
from clara.settings import Settings, settings
from workers.enqueue import queue_compress, transaction

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint as Weights
    from clara.model.models import Models

log = logging.getLogger(__name__)

LATENT_CACHE_BYTES = 512 * 2**20
"""Latents a model worker keeps in memory: 29,000 passages at 18 KiB (hidden 576, rate 16)."""

_building = Lock()


@dataclass(frozen=True)
class Chosen:
    """Which checkpoint this process serves."""

    path: str
    """Folder or Hub name; empty for an untrained one."""
    base: Path | str
    promoted: UUID | None = None
    """Id of the active checkpoint, where it is that."""
    weights_hash: str | None = None
    """As the record has it."""


@lru_cache(maxsize=1)
def database() -> OpenDb:
    """Transactions on the record."""
    return open_db(connect(settings().database_url))


def indexing() -> Indexing:
    """What the ingest queue needs."""
    with _building:
        return _indexing()


def answering() -> Answering:
    """What the query queue needs: loads the language model."""
    with _building:
        return _answering()


def compressing() -> Compressing:
    """What the compress queue needs: shares the model of `answering`."""
    with _building:
        ready = _answering()
        return Compressing(
            open_db=ready.open_db,
            latents=ready.latents,
            compressor=ready.models.compressor,
            engine=ready.engine,
            tokenizer=ready.tokenizer,
            fingerprint=ready.models.fingerprint,
            doc_max_length=ready.models.checkpoint.config.doc_max_length,
            on_processor=ready.models.device.type == "cpu",
        )


def engine() -> Engine:
    """The one thread of this process that computes."""
    with _building:
        return _engine()


@lru_cache(maxsize=1)
def chosen() -> Chosen:
    """CLARA_CHECKPOINT, else the active checkpoint, else none; decided once for the process.

    A promoted one stands on the base it was registered with, which need not be that of the
    settings.
    """
    config = settings()
    if config.checkpoint:
        folder = Path(config.checkpoint)
        path = str(folder.resolve()) if folder.is_dir() else config.checkpoint
        return Chosen(path, base_model(config))
    with database()() as db:
        row = registry.active(db)
    if row is None or row.path is None:
        return Chosen("", base_model(config))
    base = config.base_model if config.base_model and not Path(row.base).is_dir() else row.base
    return Chosen(row.path, base, row.id, row.weights_hash)


def base_model(config: Settings) -> Path | str:
    """Folder or Hub name of the base model.

    Raises:
        ModelMissing: none is named and the default one is not on this machine.
    """
    return config.base_model or _default(config, BASE)


def queue_missing_latents(open_db: OpenDb, fingerprint: str) -> int:
    """Queue a compress run for every collection that lacks latents of this fingerprint.

    Done when a model worker starts: it may bring another checkpoint than the last one.
    """
    queued = 0
    with open_db() as db:
        collections = list(db.scalars(select(Collection.id)))
    for collection in collections:
        with transaction(open_db) as (db, send):
            if db.scalar(lacking(collection, fingerprint).limit(1)):
                queued += queue_compress(db, send, collection) is not None
    return queued


def _register(open_db: OpenDb, models: Models, found: Chosen) -> UUID:
    """The row of the loaded checkpoint; one per set of weights. Returns its id.

    Raises:
        CheckpointMismatch: the folder of a promoted checkpoint holds other weights by now.
    """
    if found.weights_hash not in (None, models.weights_hash):
        raise CheckpointMismatch(
            f"{found.path} holds weights {models.weights_hash}; promoted were {found.weights_hash}",
            field="path",
            remedy="Put the promoted folder back, or register what is there and promote that.",
        )
    checkpoint = models.checkpoint
    inspected = Inspected(
        name=checkpoint.name,
        fingerprint=models.fingerprint,
        weights_hash=models.weights_hash,
        base=str(checkpoint.config.base),
        trained=checkpoint.trained,
        config=checkpoint.config.numbers(),
        path=found.path or None,
    )
    with open_db.begin() as db:
        return registry.register(db, inspected)


@lru_cache(maxsize=1)
def _indexing() -> Indexing:
    from clara.retrieval.lexical import lexical_index

    config = settings()
    return Indexing(
        open_db=database(),
        lexical=lexical_index(config),
        dense=_dense(),
        encoder=_encoder(),
        tokenizer=_tokenizer(),
        doc_max_length=_checkpoint().config.doc_max_length,
    )


@lru_cache(maxsize=1)
def _answering() -> Answering:
    from clara.retrieval.latents import CachedLatents, PostgresLatents
    from clara.retrieval.lexical import lexical_index
    from clara.retrieval.resting import RestingIndex

    config = settings()
    db = database()
    models = _models()
    checkpoint_id = _register(db, models, chosen())
    queue_missing_latents(db, models.fingerprint)
    return Answering(
        open_db=db,
        lexical=RestingIndex(lexical_index(config)),
        dense=_dense(),
        latents=CachedLatents(
            PostgresLatents(db, form=config.latent_form), max_bytes=LATENT_CACHE_BYTES
        ),
        encoder=_encoder(),
        tokenizer=_tokenizer(),
        models=models,
        engine=_engine(),
        pool=ThreadPoolExecutor(max_workers=16, thread_name_prefix="search"),
        checkpoint_id=checkpoint_id,
        limits=Limits(
            bm25_top_k=config.bm25_top_k,
            dense_top_k=config.dense_top_k,
            max_candidates=config.max_candidates,
            min_score=config.min_score,
            max_question_tokens=config.max_question_tokens,
        ),
    )


@lru_cache(maxsize=1)
def _checkpoint() -> Weights:
    from clara.model import checkpoint

    config = settings()
    found = chosen()

    def load() -> Weights:
        if found.path:
            return checkpoint.load(found.path, base=found.base)
        return checkpoint.untrained(
            found.base,
            compr_rate=config.compression_rate,
            doc_max_length=config.doc_max_length,
        )

    return _engine().submit(load, urgent=True).result()


@lru_cache(maxsize=1)
def _models() -> Models:
    """The language model: what answers and compresses needs it, and vectors made of latents do."""
    from clara.model.models import load_models

    config = settings()
    checkpoint = _checkpoint()
    base = chosen().base

    def load() -> Models:
        cache = config.home / "hashes"
        return load_models(checkpoint, base=base, device=config.device, cache=cache)

    return _engine().submit(load, urgent=True).result()


@lru_cache(maxsize=1)
def _engine() -> Engine:
    """The one thread of this process that computes."""
    config = settings()
    engine = Engine()

    def prepare() -> None:
        import torch
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # a log is no terminal
        if config.torch_threads:
            torch.set_num_threads(config.torch_threads)

    engine.submit(prepare, urgent=True).result()
    return engine


@lru_cache(maxsize=1)
def _encoder() -> EncoderOnEngine:
    config = settings()
    engine = _engine()
    if config.dense_vectors == "latents":
        from clara.retrieval.latent_encoder import LatentEncoder

        models = _models()
        roles = (models.compressor, models.reasoner)
        made = LatentEncoder(*roles, fingerprint=models.fingerprint, width=models.width)
        return EncoderOnEngine(made, engine)
    from clara.retrieval.encoder import SentenceEncoder

    given = config.sentence_encoder or _default(config, SENTENCE_ENCODER)
    loaded = engine.submit(lambda: SentenceEncoder(given), urgent=True).result()
    return EncoderOnEngine(loaded, engine)


@lru_cache(maxsize=1)
def _dense() -> DenseIndex:
    from clara.retrieval.dense import dense_index

    encoder = _encoder().encoder
    return dense_index(settings(), database(), encoder=encoder.name, dimension=encoder.dimension)


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    from clara.model.backbone import local_folder

    return FastTokenizer.from_folder(local_folder(chosen().base))


def _default(config: Settings, model: DefaultModel) -> Path:
    if not is_there(model, config.models):
        raise ModelMissing(
            f"{model.folder} is not in {config.models}",
            field="CLARA_HOME",
            remedy="Run `clara models fetch`, or name a model of your own.",
        )
    return config.models / model.folder
