from __future__ import annotations

import zlib
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import DocumentStatus, Latent, Passage, Run, RunKind, RunStatus
from clara.pipeline.recompress import count_left, ranges
from clara.pipeline.recompress_check import check_blocks, remove_damaged
from clara.pipeline.recompress_plan import UNKNOWN, make_plan
from clara.retrieval.blocks import block_bytes
from clara.types import LatentForm
from tests.factories import (
    make_checkpoint,
    make_collection,
    make_document,
    make_latent,
    make_passage,
)

OLD, NEW = "a" * 64, "b" * 64
CONFIG = {"compr_rate": 4, "doc_max_length": 32, "kind": "memory"}


def filled(session: Session, collection: Any, count: int, **values: Any) -> list[Any]:
    """Passages of a document each, without latents."""
    made = [make_document(session, collection, text=f"Document {n} says.") for n in range(count)]
    return [make_passage(session, document, **({"tokens": 10} | values)) for document in made]


def planned(session: Session, collection: UUID, **options: Any) -> Any:
    checkpoint = make_checkpoint(session, fingerprint=NEW, config=CONFIG)
    return make_plan(session, collection, checkpoint, **({"form": LatentForm.BF16} | options))


def test_every_stale_passage_has_one_reason(db: OpenDb) -> None:
    with db.begin() as session:
        shop, other = make_collection(session), make_collection(session)
        current, older, damaged, none, long, written = filled(session, shop, 6)
        for passage in (current, older, damaged, written):
            make_latent(session, passage, OLD)
        for passage in (current, damaged, written):
            make_latent(session, passage, NEW)
        filled(session, other, 3)
        session.execute(
            update(Latent)
            .where(Latent.passage_id == damaged.id, Latent.fingerprint == NEW)
            .values(block=b"\0\0\0")
        )
        session.execute(update(Passage).where(Passage.id == long.id).values(tokens=33))
        again = make_document(session, shop, status=DocumentStatus.PENDING)
        session.execute(
            update(Passage).where(Passage.id == written.id).values(document_id=again.id)
        )
        plan = planned(session, shop.id)
    assert plan.passages == 6
    assert plan.stale == {"fingerprint": 1, "damaged": 1, "missing": 2, "text": 1}
    assert (plan.too_long, plan.to_make, plan.tokens) == (1, 3, 30)
    assert none.id != long.id


def test_a_plan_of_an_empty_collection_costs_nothing(db: OpenDb) -> None:
    with db.begin() as session:
        plan = planned(session, make_collection(session).id)
    assert (plan.passages, plan.to_make, plan.tokens, plan.seconds.value) == (0, 0, 0, 0.0)


def test_a_plan_names_what_its_estimates_rest_on(db: OpenDb) -> None:
    with db.begin() as session:
        shop = make_collection(session)
        passages = filled(session, shop, 4)
        unknown = planned(session, shop.id)
        assert (unknown.bytes.value, unknown.seconds.value) == (None, None)
        assert unknown.bytes.basis == unknown.seconds.basis == UNKNOWN

        make_latent(session, passages[0], OLD)  # 2 wide
        result = {"tokens": 100, "seconds": 4.0, "fingerprint": OLD}
        session.add(Run(kind=RunKind.RECOMPRESS_PART, status=RunStatus.SUCCEEDED, result=result))
        session.flush()
        guessed = planned(session, shop.id)
        assert guessed.bytes.value == 4 * 8 * 2 * 2
        assert "8 rows by the checkpoint's configuration, 2 wide" in guessed.bytes.basis
        assert planned(session, shop.id, form=LatentForm.INT8).bytes.value == 4 * 8 * (2 + 4)
        assert guessed.seconds.value == pytest.approx(40 / 25, abs=0.1)
        assert "25 tokens a second" in guessed.seconds.basis
        assert "other checkpoints" in guessed.seconds.basis

        make_latent(session, passages[1], NEW)
        own = {"tokens": 100, "seconds": 1.0, "fingerprint": NEW}
        session.add(Run(kind=RunKind.RECOMPRESS_PART, status=RunStatus.SUCCEEDED, result=own))
        session.flush()
        measured = planned(session, shop.id)
        assert measured.bytes.value == 3 * 4
        assert "this checkpoint" in measured.bytes.basis
        assert measured.seconds.value == pytest.approx(0.3)
        assert "this checkpoint" in measured.seconds.basis


def test_the_length_of_a_block_is_judged_as_reading_does(db: OpenDb) -> None:
    with db.begin() as session:
        shop = make_collection(session)
        for n, passage in enumerate(filled(session, shop, 8)):
            form = LatentForm.INT8 if n % 2 else LatentForm.BF16
            right = block_bytes(form, rows=n % 4, width=5)
            block = bytes(right + (n >= 4))
            row = make_latent(session, passage, NEW)
            row.form, row.rows, row.width, row.block = form, n % 4, 5, block
            row.checksum = zlib.crc32(block)
        session.flush()
        plan = planned(session, shop.id)
        assert plan.stale["damaged"] == 5  # four one byte too long, and one without rows
        gone = remove_damaged(session, shop.id, NEW, [])
    assert len(gone) == 5


def test_checksums_are_compared_in_turn_and_the_damaged_ones_are_removed(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clara.pipeline.recompress_check.PAGE", 2)
    with db.begin() as session:
        shop = make_collection(session)
        passages = sorted(passage.id for passage in filled(session, shop, 5))
        for passage in session.scalars(select(Passage)):
            make_latent(session, passage, NEW)
            make_latent(session, passage, OLD)
        session.execute(
            update(Latent)
            .where(Latent.passage_id == passages[4], Latent.fingerprint == NEW)
            .values(checksum=7)
        )

    def check(after: UUID | None, budget_s: float) -> Any:
        return check_blocks(db, shop.id, NEW, after=after, budget_s=budget_s, stopped=lambda: False)

    nothing = check(None, 0.0)
    assert (nothing.blocks, nothing.to, nothing.damaged) == (0, None, [])
    rest = check(passages[1], 60.0)
    assert (rest.blocks, rest.to) == (3, None)
    assert [passage for passage, _ in rest.damaged] == [passages[4]]
    with db.begin() as session:
        assert remove_damaged(session, shop.id, NEW, rest.damaged) == [passages[4]]
        plan = planned(session, shop.id, damaged=[passages[4]])
    assert (plan.stale["damaged"], plan.stale["fingerprint"], plan.to_make) == (1, 0, 1)


def test_a_block_written_anew_since_it_was_compared_stays(db: OpenDb) -> None:
    with db.begin() as session:
        shop = make_collection(session)
        (passage,) = filled(session, shop, 1)
        row = make_latent(session, passage, NEW)
        session.refresh(row)
        found = [(row.passage_id, row.created_at)]
        session.execute(update(Latent).values(created_at=row.created_at.replace(year=2000)))
        assert remove_damaged(session, shop.id, NEW, found) == []


@pytest.mark.parametrize(("count", "size", "most"), [(10, 4, 9), (10, 4, 2), (3, 5, 2), (8, 4, 2)])
def test_ranges_hold_every_passage_once_up_to_the_last(
    db: OpenDb, count: int, size: int, most: int
) -> None:
    with db.begin() as session:
        shop = make_collection(session)
        passages = sorted(passage.id for passage in filled(session, shop, count))
        skipped = passages[1:2]
        cut = ranges(session, shop.id, NEW, size=size, most=most, skipped=skipped)
        wanted = [passage for passage in passages if passage not in skipped]
        assert count_left(session, shop.id, NEW, skipped) == len(wanted)
    held = [
        [p for p in wanted if p >= (r.first or p) and (r.before is None or p < r.before)]
        for r in cut
    ]
    assert [len(one) for one in held] == [r.passages for r in cut]
    assert all(0 < r.passages <= size for r in cut)
    assert [p for one in held for p in one] == wanted[: size * most]
    assert ranges(session, shop.id, OLD, size=1, most=1)
