from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
import torch
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import sessionmaker

from clara.db.connect import OpenDb
from clara.db.tables import Latent, Run, RunKind, RunStatus
from clara.retrieval.latents import CachedLatents, PostgresLatents
from clara.settings import Settings
from tests.factories import make_collection, make_document, make_passage
from workers import bootstrap, enqueue
from workers.repairing import queue_repair


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Runs whose message left."""
    left: list[UUID] = []
    monkeypatch.setattr(enqueue, "send", lambda _, run: not left.append(run))
    return left


@pytest.fixture
def passages(db: OpenDb) -> list[UUID]:
    """One of each of two collections, with their latents."""
    with db.begin() as session:
        made = [
            make_passage(session, make_document(session, make_collection(session))).id for _ in "ab"
        ]
    PostgresLatents(db).put("f", {passage: torch.ones(2, 4) for passage in made})
    return made


def damage(db: OpenDb, passage: UUID) -> None:
    with db.begin() as session:
        session.execute(update(Latent).where(Latent.passage_id == passage).values(checksum=1))


def compress_runs(db: OpenDb) -> list[Run]:
    with db() as session:
        return list(session.scalars(select(Run).where(Run.kind == RunKind.COMPRESS)))


def test_a_damaged_latent_is_left_out_and_its_collection_is_compressed_once(
    db: OpenDb, passages: list[UUID], sent: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ThreadPoolExecutor(1)
    monkeypatch.setattr(bootstrap, "database", lambda: db)
    monkeypatch.setattr(bootstrap, "settings", lambda: Settings(_env_file=None))
    monkeypatch.setattr(bootstrap, "_pool", lambda: pool)
    store = bootstrap._latents.__wrapped__()  # as a worker builds it, without keeping it
    assert isinstance(store, CachedLatents)
    damage(db, passages[0])
    assert store.get("f", passages).keys() == {passages[1]}
    assert store.get("f", passages).keys() == {passages[1]}
    pool.shutdown(wait=True)
    (run,) = compress_runs(db)
    assert (run.status, sent) == (RunStatus.QUEUED, [run.id])
    with db() as session:
        held = session.scalars(select(Latent.passage_id)).all()
    assert held == [passages[1]]


def test_a_run_that_is_queued_already_is_enough(
    db: OpenDb, passages: list[UUID], sent: list[UUID]
) -> None:
    first = queue_repair(db, passages)
    assert len(first) == 2
    assert queue_repair(db, [*passages, uuid4()]) == []
    assert {run.id for run in compress_runs(db)} == set(first) == set(sent)


def test_who_is_told_of_damage_decides_when_it_is_repaired(
    db: OpenDb, passages: list[UUID], sent: list[UUID]
) -> None:
    repairs: list[list[UUID]] = []
    store = PostgresLatents(db, damaged=lambda found: repairs.append(list(found)))
    damage(db, passages[0])
    store.get("f", passages)
    assert repairs == [[passages[0]]]
    assert compress_runs(db) == []


def test_a_database_that_is_away_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    nowhere = sessionmaker(create_engine("postgresql+psycopg://127.0.0.1:9/none"))
    with caplog.at_level(logging.WARNING):
        assert queue_repair(nowhere, [uuid4()]) == []
    assert "damaged latents of 1 passages wait for a repair" in caplog.text
