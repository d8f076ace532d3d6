"""What a model worker does before its first message, on a real record."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Collection, Run, RunKind
from clara.errors import ModelMissing
from clara.settings import Settings
from tests.factories import (
    make_checkpoint,
    make_collection,
    make_document,
    make_latent,
    make_passage,
)
from workers import bootstrap, enqueue, following
from workers.enqueue import transaction
from workers.starting import start


class Holding:
    """Stands for the checkpoints of a process: some cannot be loaded."""

    def __init__(self, *gone: UUID) -> None:
        self.gone = set(gone)
        self.asked: list[UUID] = []

    def get(self, checkpoint_id: UUID) -> None:
        self.asked.append(checkpoint_id)
        if checkpoint_id in self.gone:
            raise ModelMissing("its folder is gone")


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[RunKind]:
    kinds: list[RunKind] = []
    monkeypatch.setattr(enqueue, "send", lambda kind, _: not kinds.append(kind))
    return kinds


@pytest.fixture
def config() -> Settings:
    return Settings(_env_file=None)


def made(db: OpenDb, **values: Any) -> UUID:
    with db.begin() as session:
        return make_checkpoint(session, **({"path": "/weights"} | values)).id


def collection(db: OpenDb, checkpoint: UUID | None = None, **values: Any) -> UUID:
    """With one passage, and where a checkpoint is given with its generation and its latent."""
    with db.begin() as session:
        where = make_collection(session, **values)
        passage = make_passage(session, make_document(session, where))
        if checkpoint:
            row = session.get_one(Checkpoint, checkpoint)
            generations.ensure(session, where.id, row)
            make_latent(session, passage, row.fingerprint)
        return where.id


def default(monkeypatch: pytest.MonkeyPatch, checkpoint: UUID) -> None:
    monkeypatch.setattr(
        bootstrap, "default_checkpoint", lambda db: db.get_one(Checkpoint, checkpoint)
    )


def serving(db: OpenDb, where: UUID) -> tuple[int, UUID]:
    with db() as session:
        found = generations.active(session, where)
    assert found
    return found.number, found.checkpoint_id


def recompressions(db: OpenDb) -> list[tuple[UUID | None, str, bool]]:
    with db() as session:
        rows = session.scalars(select(Run).where(Run.kind == RunKind.RECOMPRESS))
        return [(row.collection_id, row.inputs["reason"], row.inputs["gate"]) for row in rows]


def test_an_installation_of_an_earlier_release_serves_the_latents_it_has(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch, sent: list[RunKind]
) -> None:
    """No generations yet, and latents of the fingerprint that is loaded."""
    one = made(db, fingerprint="f")
    where = collection(db)
    with db.begin() as session:
        document = make_document(session, session.get_one(Collection, where))
        make_latent(session, make_passage(session, document), "f")
    default(monkeypatch, one)
    start(Holding(), db, config)  # type: ignore[arg-type]
    assert serving(db, where) == (1, one)
    assert recompressions(db) == []
    assert sent == [RunKind.COMPRESS]  # of the passage that lacks its latent
    start(Holding(), db, config)  # type: ignore[arg-type]
    assert serving(db, where) == (1, one)
    assert sent == [RunKind.COMPRESS]


def test_a_default_with_the_same_latents_takes_over_at_once_and_another_by_a_recompression(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, other, now = (
        made(db, fingerprint="f"),
        made(db, fingerprint="g"),
        made(db, fingerprint="f"),
    )
    shares, differs = collection(db, old), collection(db, other)
    held = collection(db, other, held=True)
    default(monkeypatch, now)
    for _ in range(2):  # the second start finds everything under way
        start(Holding(), db, config)  # type: ignore[arg-type]
        assert serving(db, shares) == (2, now)
        assert serving(db, differs) == (1, other)
        assert serving(db, held) == (1, other)
        assert recompressions(db) == [(differs, "default checkpoint", False)]


def test_a_promoted_default_goes_through_the_gate_and_stays_away_where_it_was_refused(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, now = made(db, fingerprint="f"), made(db, fingerprint="g", active=True)
    refused, open_ = collection(db, old), collection(db, old)
    with db.begin() as session:
        begun = generations.build(session, refused, session.get_one(Checkpoint, now), None)
        generations.drop(session, begun.id, gate={"passed": False})
    default(monkeypatch, now)
    start(Holding(), db, config)  # type: ignore[arg-type]
    assert recompressions(db) == [(open_, "default checkpoint", True)]


def test_an_untrained_default_takes_the_place_of_no_trained_one(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = made(db, fingerprint="f")
    before = made(db, fingerprint="u", trained=False, path=None)
    now = made(db, fingerprint="v", trained=False, path=None)
    stays, moves = collection(db, trained), collection(db, before)
    default(monkeypatch, now)
    start(Holding(), db, config)  # type: ignore[arg-type]
    assert serving(db, stays) == (1, trained)
    assert [row[0] for row in recompressions(db)] == [moves]


def test_a_promoted_checkpoint_that_is_gone_stops_no_worker_that_can_answer(
    db: OpenDb, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, gone = made(db, fingerprint="f"), made(db, fingerprint="g", active=True)
    collection(db, old)
    default(monkeypatch, gone)
    loaded = Holding(gone)
    start(loaded, db, config)  # type: ignore[arg-type]
    assert loaded.asked == [gone, old]
    with pytest.raises(ModelMissing):
        start(Holding(gone, old), db, config)  # type: ignore[arg-type]
    named = config.model_copy(update={"checkpoint": "/weights"})
    with pytest.raises(ModelMissing):
        start(Holding(gone), db, named)  # type: ignore[arg-type]


def test_following_says_what_became_of_each_collection(db: OpenDb) -> None:
    old, shares, differs = (made(db, fingerprint=one) for one in "ffg")
    where = collection(db, old)
    with db() as session:
        rows = {one.id: one for one in session.scalars(select(Checkpoint))}
    with transaction(db) as (session, send):
        how: Any = {"keep": 2, "reason": "promotion", "gate": True}
        done = following.follow_all(session, send, rows[shares], **how)
        assert (done.switched, done.queued) == ([where], [])
        done = following.follow_all(session, send, rows[shares], **how)
        assert (done.switched, done.queued) == ([], [])
        done = following.follow_all(session, send, rows[differs], **how)
        assert (done.switched, done.queued) == ([], [where])
    assert recompressions(db) == [(where, "promotion", True)]


def test_nothing_is_queued_of_a_promotion_that_is_given_up(db: OpenDb, sent: list[RunKind]) -> None:
    old, now = made(db, fingerprint="f"), made(db, fingerprint="g")
    collection(db, old)
    with db() as session:
        row = session.get_one(Checkpoint, now)
        following.follow_all(session, lambda *_: None, row, keep=2, reason="promotion", gate=True)
        session.rollback()
    assert (recompressions(db), sent) == ([], [])
