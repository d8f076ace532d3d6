"""Builds what a worker process needs, once, at its start. Model code is imported inside only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from uuid import UUID
from weakref import WeakValueDictionary

from sqlalchemy.orm import Session

from clara import registry
from clara.db.connect import OpenDb, connect, open_db
from clara.db.tables import Checkpoint
from clara.default_models import (
    BASE,
    SENTENCE_ENCODER,
    chosen_answerability,
    chosen_checkpoint,
    folder_of,
)
from clara.pipeline.asking import Answering, limits_of
from clara.registry import Inspected
from clara.retrieval.ports import DenseIndex, LatentStore, LexicalIndex
from clara.serving.encoding import EncoderOnEngine
from clara.serving.engine import Engine
from clara.settings import Settings, settings
from workers import weights
from workers.loaded import Loaded
from workers.repairing import queue_repair

if TYPE_CHECKING:
    from clara.model.models import Models
    from workers.indexings import Indexings, Reads, Vectors

LATENT_CACHE_BYTES = 512 * 2**20
"""Latents a model worker keeps in memory: 29,000 passages at 18 KiB (hidden 576, rate 16)."""

_building = Lock()
_choosing = Lock()

_dense_of_latents: WeakValueDictionary[str, DenseIndex] = WeakValueDictionary()
"""By encoder: checkpoints that share a compressor share the copy in memory, and it goes with the
last of them."""


@lru_cache(maxsize=1)
def database() -> OpenDb:
    """Transactions on the record."""
    return open_db(connect(settings().database_url))


def loaded() -> Loaded:
    """What the query, compress and recompress queues need: checkpoints, loaded when asked for."""
    with _building:
        return _loaded()


def indexings() -> Indexings:
    """What the ingest queue needs."""
    with _building:
        return _indexings()


def engine() -> Engine:
    """The one thread of this process that computes."""
    with _building:
        return _engine()


def started_engine() -> Engine | None:
    """The same, where this process has one already: asking for it starts none."""
    return _engine() if _engine.cache_info().currsize else None


def loader() -> Engine:
    """The one thread that loads checkpoints and looks through their folders, on one core.

    While transformers makes a model it changes torch's default type for the whole process and sets
    it back after: two threads that do so leave each other's behind, so there is one. What the
    engine computes does not depend on it.
    """
    with _building:
        return _loader()


def default_checkpoint(db: Session) -> Checkpoint:
    """Of collections without a generation.

    CLARA_CHECKPOINT, else the promoted one, else the one that comes with the default base, else an
    untrained one.

    Raises:
        ClaraError: the one that is named, or its base, is damaged or not here.
    """
    if not settings().checkpoint and (promoted := registry.active(db)):
        return promoted
    with _choosing:
        own = _own_default()
    row: Checkpoint = db.get_one(Checkpoint, own)
    return row


def base_model(config: Settings) -> Path | str:
    """Folder or Hub name of the base model.

    Raises:
        ModelMissing: none is named and the default one is not on this machine.
    """
    return config.base_model or folder_of(BASE, config.models)


@lru_cache(maxsize=1)
def _own_default() -> UUID:
    """Id of the row of what the settings name, which is written where it is not there."""
    config = settings()
    found = loader().submit(lambda: _named(config), urgent=True).result()
    with database().begin() as db:
        return registry.register(db, found)


def _named(config: Settings) -> Inspected:
    base = base_model(config)
    chosen = chosen_checkpoint(config)
    if not chosen:
        return weights.inspect_untrained(base, config)
    found = weights.inspect(chosen, [str(base)], config)
    here = Path(chosen).is_dir()
    return found if here else replace(found, path=chosen)  # of the Hub, for every host


@lru_cache(maxsize=1)
def _loaded() -> Loaded:
    config = settings()
    _latents(), _lexical(), _vectors()  # what is missing stops the start
    return Loaded(
        database(),
        engine=_engine(),
        loader=_loader(),
        find=lambda row: weights.find(row, config),
        serve=_serve,
        default=default_checkpoint,
        bound=config.checkpoints_in_memory,
        own_vectors=config.dense_vectors == "latents",
    )


def _serve(row: Checkpoint, models: Models) -> Answering:
    """Over the stores that all checkpoints share."""
    from clara.model.hub import local_folder
    from workers.indexings import tokenizer

    config = settings()
    vectors = _vectors() or _vectors_of(models)
    return Answering(
        open_db=database(),
        lexical=_lexical(),
        dense=vectors.dense,
        latents=_latents(),
        encoder=vectors.encoder,
        tokenizer=tokenizer(local_folder(models.checkpoint.config.base)),
        models=models,
        engine=_engine(),
        pool=_pool(),
        checkpoint_id=row.id,
        limits=limits_of(config, models.checkpoint),
    )


@lru_cache(maxsize=1)
def _indexings() -> Indexings:
    from clara.retrieval.lexical import lexical_index
    from workers.indexings import Indexings

    config = settings()
    return Indexings(
        config=config,
        open_db=database(),
        lexical=lexical_index(config),
        vectors=_vectors(),
        loaded=loaded,
        default=_default_reads,
    )


def _default_reads() -> Reads:
    """How the default checkpoint reads; its weights are not looked at."""
    from workers.indexings import Reads, reads

    config = settings()
    if config.checkpoint:
        return _named_reads()
    with database()() as db:
        promoted = registry.active(db)
    if promoted is not None:
        return reads(promoted, config)
    if chosen_checkpoint(config):
        return _named_reads()
    from clara.model.hub import local_folder

    return Reads(local_folder(base_model(config)), config.doc_max_length)


@lru_cache(maxsize=1)
def _named_reads() -> Reads:
    from clara.model import checkpoint
    from clara.model.hub import local_folder
    from workers.indexings import Reads

    config = settings()
    base = base_model(config)
    chosen = chosen_checkpoint(config)
    load = loader().submit(lambda: checkpoint.load(chosen, base=base), urgent=True)
    return Reads(local_folder(base), load.result().config.doc_max_length)


@lru_cache(maxsize=1)
def _engine() -> Engine:
    config = settings()
    engine = Engine()

    def prepare() -> None:
        import torch
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # a log is no terminal
        # asked for first: a thread that never did takes what any thread set last, even over its own
        own = torch.get_num_threads()
        torch.set_num_threads(config.torch_threads or own)

    engine.submit(prepare, urgent=True).result()
    return engine


@lru_cache(maxsize=1)
def _loader() -> Engine:
    _engine()  # the engine first: a thread that asks later gets the number that was set last
    made = Engine(name="clara-loader")

    def prepare() -> None:
        import torch

        torch.set_num_threads(1)  # no second team of threads beside the engine's

    made.submit(prepare, urgent=True).result()
    return made


@lru_cache(maxsize=1)
def _lexical() -> LexicalIndex:
    from clara.retrieval.lexical import lexical_index
    from clara.retrieval.resting import RestingIndex

    return RestingIndex(lexical_index(settings()))


@lru_cache(maxsize=1)
def _latents() -> LatentStore:
    from clara.retrieval.latents import CachedLatents, PostgresLatents

    db = database()
    # in another thread: whoever finds the damage may hold what queueing waits for
    store = PostgresLatents(
        db,
        form=settings().latent_form,
        damaged=lambda passages: _pool().submit(queue_repair, db, passages),
    )
    return CachedLatents(store, max_bytes=LATENT_CACHE_BYTES)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=16, thread_name_prefix="search")


@lru_cache(maxsize=1)
def _vectors() -> Vectors | None:
    """By the sentence encoder, the same for all checkpoints; None where each makes its own."""
    from clara.answerability.encoder import open_encoder
    from workers.indexings import Vectors

    config, computing = settings(), _engine()
    if config.dense_vectors == "latents":
        return None
    given = config.sentence_encoder or folder_of(SENTENCE_ENCODER, config.models)
    adapter = chosen_answerability(config)
    encoder = computing.submit(lambda: open_encoder(given, adapter), urgent=True).result()
    return Vectors(_dense(encoder.name, encoder.dimension), EncoderOnEngine(encoder, computing))


def _vectors_of(models: Models) -> Vectors:
    """By the checkpoint itself."""
    from clara.retrieval.latent_encoder import LatentEncoder
    from workers.indexings import Vectors

    roles = (models.compressor, models.reasoner)
    encoder = LatentEncoder(*roles, fingerprint=models.fingerprint, width=models.width)
    dense = _dense_of_latents.get(encoder.name) or _dense(encoder.name, encoder.dimension)
    _dense_of_latents[encoder.name] = dense
    return Vectors(dense, EncoderOnEngine(encoder, _engine()))


def _dense(encoder: str, dimension: int) -> DenseIndex:
    from clara.retrieval.dense import dense_index

    return dense_index(settings(), database(), encoder=encoder, dimension=dimension)
