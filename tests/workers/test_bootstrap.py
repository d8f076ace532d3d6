"""What a worker process builds: which checkpoint is the default, and threads that do not meet."""

from __future__ import annotations

from collections.abc import Iterator
from functools import _lru_cache_wrapper
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import func, select

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint
from clara.errors import ModelMissing
from clara.settings import Settings
from tests.factories import make_checkpoint, make_collection
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder
from workers import bootstrap


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    base = tiny_base(folder / "base")
    return {
        "base_model": str(base),
        "sentence_encoder": str(tiny_encoder(folder / "encoder")),
        "trained": str(tiny_checkpoint(folder / "trained", base)),
    }


@pytest.fixture(autouse=True)
def process(
    db: OpenDb, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A worker process that has built nothing yet."""
    monkeypatch.setattr(bootstrap, "database", lambda: db)
    given(monkeypatch, models, tmp_path)
    caches = [one for one in vars(bootstrap).values() if isinstance(one, _lru_cache_wrapper)]
    for cache in caches:
        cache.cache_clear()
    yield
    for engine in (bootstrap._engine, bootstrap._loader):
        if engine.cache_info().currsize:
            engine().close(drain=False)
    for cache in caches:
        cache.cache_clear()


def given(
    monkeypatch: pytest.MonkeyPatch, models: dict[str, str], home: Path, **values: object
) -> None:
    named = {name: models[name] for name in ("base_model", "sentence_encoder")}
    config = Settings(
        _env_file=None,
        **(named | {"home": home, "device": "cpu", "doc_max_length": 32} | values),
        elasticsearch_url="",
    )
    monkeypatch.setattr(bootstrap, "settings", lambda: config)


def default(db: OpenDb) -> Checkpoint:
    with db() as session:
        return bootstrap.default_checkpoint(session)


def test_without_a_promotion_the_untrained_checkpoint_is_the_default(db: OpenDb) -> None:
    row = default(db)
    assert (row.name, row.trained, row.path) == ("untrained-32x16", False, None)
    assert default(db).id == row.id
    loaded = bootstrap.loaded().get(row.id)
    assert loaded.models.weights_hash == row.weights_hash
    assert loaded.fingerprint == row.fingerprint


def test_the_promoted_one_comes_first_and_the_setting_before_it(
    db: OpenDb, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.begin() as session:
        promoted = make_checkpoint(session, path="/weights", active=True).id
    assert default(db).id == promoted
    given(monkeypatch, models, tmp_path, checkpoint=models["trained"])
    row = default(db)
    assert (row.name, row.path, row.trained) == ("tiny", models["trained"], True)
    with db() as session:
        assert session.scalar(select(func.count()).select_from(Checkpoint)) == 2


def test_a_base_that_is_not_here_is_named(
    db: OpenDb, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, models, tmp_path, base_model="/nowhere/at/all")
    with pytest.raises(ModelMissing, match="/nowhere/at/all"):
        default(db)


def test_loading_takes_one_core_and_leaves_the_engine_its_own(
    db: OpenDb, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    given(monkeypatch, models, tmp_path, torch_threads=2)
    loader, engine = bootstrap.loader(), bootstrap.engine()
    threads = [one.submit(torch.get_num_threads, urgent=True).result() for one in (loader, engine)]
    assert threads == [1, 2]


def test_an_engine_is_only_named_once_there_is_one() -> None:
    assert bootstrap.started_engine() is None
    engine = bootstrap.engine()
    assert bootstrap.started_engine() is engine


def test_passages_are_cut_for_the_generation_that_answers(
    db: OpenDb, models: dict[str, str]
) -> None:
    with db.begin() as session:
        row = make_checkpoint(
            session, base=models["base_model"], config={"doc_max_length": 64}, fingerprint="f"
        )
        one, other = make_collection(session).id, make_collection(session).id
        generations.ensure(session, one, row)
    indexings = bootstrap.indexings()
    assert indexings.of(one).doc_max_length == 64
    assert indexings.of(other).doc_max_length == indexings.of(None).doc_max_length == 32
    assert indexings.of(one).dense is indexings.of(other).dense
    with db.begin() as session:
        session.get_one(Checkpoint, row.id).active = True
    assert indexings.of(other).doc_max_length == 64  # its first generation would be of that one


def test_a_named_checkpoint_says_how_new_collections_are_cut(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, models, tmp_path, checkpoint=models["trained"], doc_max_length=64)
    assert bootstrap.indexings().of(None).doc_max_length == 32


def two_that_share_latents(db: OpenDb, models: dict[str, str], tmp_path: Path) -> list[UUID]:
    """Rows of a trained checkpoint and of one with another generator, and an untrained one."""
    from dataclasses import replace

    from clara import registry
    from clara.model import checkpoint as checkpoints
    from workers import weights

    first = checkpoints.load(models["trained"])
    louder = {key: tensor * 1.5 for key, tensor in first.adapters["generator"].items()}
    second = replace(first, adapters={**first.adapters, "generator": louder})
    checkpoints.save(second, tmp_path / "louder")
    config = bootstrap.settings()
    paths = (models["trained"], str(tmp_path / "louder"))
    found = [weights.inspect(path, [""], config) for path in paths]
    with db.begin() as session:
        return [registry.register(session, one) for one in found]


def test_vectors_made_of_latents_belong_to_the_checkpoint_and_are_shared_with_its_like(
    db: OpenDb, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, models, tmp_path, dense_vectors="latents", checkpoints_in_memory=3)
    first, second = two_that_share_latents(db, models, tmp_path)
    loaded = bootstrap.loaded()
    one, other, untrained = loaded.get(first), loaded.get(second), loaded.default()
    assert one.dense is other.dense is not untrained.dense
    assert one.encoder.encoder.name == f"latents:{one.fingerprint}"
    with db.begin() as session:
        where = make_collection(session).id
        generations.ensure(session, where, session.get_one(Checkpoint, second))
    indexings = bootstrap.indexings()
    assert indexings.of(where).encoder is other.encoder
    assert indexings.of(None).encoder is untrained.encoder
    name = untrained.encoder.encoder.name
    del one, other, untrained, loaded, indexings
    bootstrap._loaded.cache_clear()
    bootstrap._indexings.cache_clear()
    import gc

    gc.collect()
    assert name not in bootstrap._dense_of_latents


def test_with_room_for_one_the_models_of_the_other_are_gone_from_memory(
    db: OpenDb, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After they have computed, and with nobody waiting: no thread keeps what it did last."""
    import weakref

    given(monkeypatch, models, tmp_path, checkpoints_in_memory=1)
    first, second = two_that_share_latents(db, models, tmp_path)
    loaded = bootstrap.loaded()

    def use(checkpoint: UUID) -> list[weakref.ref[object]]:
        ready = loaded.get(checkpoint)
        ready.engine.compress(ready.models.compressor, ["Tea came."])
        found = ready.models
        trunks = (found.compressor.trunk, found.reasoner.trunk, found.generator.model)
        return [weakref.ref(one) for one in (found, found.generator, *trunks)]

    gone = use(first)
    assert use(second)[0]() is not None
    assert [one() for one in gone] == [None] * len(gone)
    assert loaded.peek(first) is None
