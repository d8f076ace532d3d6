"""Checkpoints on a real record: what a row keeps, and that one at most serves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from clara import registry
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, RunKind
from clara.errors import PromotionRefused, UnknownCheckpoint
from clara.evaluation.gate import Verdict
from clara.registry import Inspected
from tests.factories import make_checkpoint, make_run

GOOD, WORSE = {"nq": {"cover_em": 0.5}}, {"nq": {"cover_em": 0.4}}


def inspected(**values: object) -> Inspected:
    given = {
        "name": "tiny",
        "fingerprint": "f",
        "weights_hash": "w",
        "base": "/base",
        "trained": True,
        "config": {"compr_rate": 4},
        "path": "/weights",
    }
    return Inspected(**(given | values))  # type: ignore[arg-type]


def made(db: OpenDb, **values: object) -> UUID:
    with db.begin() as session:
        return make_checkpoint(session, **({"path": "/weights"} | values)).id


def stored(db: OpenDb, checkpoint_id: UUID) -> Checkpoint:
    with db() as session:
        return session.get_one(Checkpoint, checkpoint_id)


def promote(
    db: OpenDb, checkpoint_id: UUID, *, margin: float = 0.02, force: str | None = None
) -> tuple[Checkpoint, Verdict]:
    with db.begin() as session:
        return registry.promote(session, checkpoint_id, margin=margin, force=force)


def test_a_set_of_weights_has_one_row_that_keeps_what_it_knows(db: OpenDb) -> None:
    with db.begin() as session:
        run = make_run(session, RunKind.TRAIN)
        first = registry.register(session, inspected(), run_id=run.id, scores=GOOD)
    with db.begin() as session:
        found = inspected(fingerprint="bf16", path=None)  # as a worker that only loaded it says
        assert registry.register(session, found) == first
    row = stored(db, first)
    assert (row.path, row.run_id, row.scores) == ("/weights", run.id, GOOD)
    assert row.fingerprint == "bf16"
    assert not row.active


def test_a_checkpoint_is_found_by_id_and_by_name_if_it_has_weights(db: OpenDb) -> None:
    old = made(db, name="a")
    new = made(db, name="a")
    made(db, name="a", path=None)
    with db() as session:
        assert registry.find(session, str(old)).id == old
        assert registry.find(session, "a").id == new
        for nobody in (str(uuid4()), "b", ""):
            with pytest.raises(UnknownCheckpoint):
                registry.find(session, nobody)


def test_scores_of_a_set_are_replaced_and_those_of_others_kept(db: OpenDb) -> None:
    one = made(db, scores={"nq": {"em": 0.1}, "dev": {"score": 2.0}})
    with db.begin() as session:
        registry.score(session, one, GOOD)
    assert stored(db, one).scores == {"nq": {"cover_em": 0.5}, "dev": {"score": 2.0}}
    with pytest.raises(UnknownCheckpoint), db.begin() as session:
        registry.score(session, uuid4(), GOOD)


def test_a_promotion_takes_the_place_of_the_one_before(db: OpenDb) -> None:
    first, second = made(db, scores=GOOD), made(db, scores=GOOD)
    promote(db, first)
    row, verdict = promote(db, second)
    assert verdict.passed
    assert row.promoted_at
    assert [stored(db, one).active for one in (first, second)] == [False, True]
    report = stored(db, second).gate
    assert report
    assert (report["passed"], report["against"]) == (True, str(first))
    with db() as session:
        serving = registry.active(session)
        assert serving
        assert serving.id == registry.active_id(session) == second


def test_a_refusal_changes_nothing_but_the_report(db: OpenDb) -> None:
    first, second = made(db, scores=GOOD), made(db, scores=WORSE)
    promote(db, first)
    row, verdict = promote(db, second)
    assert not verdict.passed
    assert [stored(db, one).active for one in (first, second)] == [True, False]
    assert row.gate
    assert row.gate["compared"][0]["worse_by"] == pytest.approx(0.1)
    refused = registry.refusal(row, verdict)
    assert "cover_em on nq" in refused.message
    assert refused.limit == 0.02


def test_force_overrules_the_gate_and_keeps_the_reason(db: OpenDb) -> None:
    first, second = made(db, scores=GOOD), made(db)
    promote(db, first)
    row, verdict = promote(db, second, force="the other one leaks")
    assert not verdict.passed
    assert row.active
    assert row.gate
    assert (row.gate["passed"], row.gate["forced"]) == (False, "the other one leaks")


def test_the_active_one_again_changes_nothing(db: OpenDb) -> None:
    first = made(db, scores=GOOD)
    promote(db, first)
    before = stored(db, first).promoted_at
    assert promote(db, first)[1].passed
    assert stored(db, first).promoted_at == before


def test_what_has_no_weights_is_refused_even_by_force(db: OpenDb) -> None:
    untrained = made(db, path=None, scores=GOOD)
    with pytest.raises(PromotionRefused, match="no folder"):
        promote(db, untrained, force="because")


def test_of_many_promotions_at_once_one_stays_active(db: OpenDb) -> None:
    many = [made(db, scores=GOOD) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert all(verdict.passed for _, verdict in pool.map(lambda one: promote(db, one), many))
    with db() as session:
        assert len(session.scalars(select(Checkpoint.id).where(Checkpoint.active)).all()) == 1
