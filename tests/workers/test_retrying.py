"""Failed and cancelled runs, tried again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, DocumentStatus, Run, RunKind, RunStatus
from clara.documents import write_documents
from clara.errors import Cancelled, DamagedFile, RunNotRetryable, UnknownRun
from clara.types import SourceDocument
from tests.factories import make_answer, make_collection, make_question, make_run
from tests.workers.test_runs import begun, queued, stored, taken
from workers import runs
from workers.retrying import retry, retry_all

ENDED: dict[str, Any] = {
    "attempts": 3,
    "error": {"code": "damaged-file", "message": "page 3", "retryable": False},
    "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
    "started_at": datetime(2026, 1, 1, tzinfo=UTC),
}


class Outbox(list[tuple[RunKind, UUID]]):
    """What was asked to be sent."""

    def __call__(self, kind: RunKind, run_id: UUID) -> None:
        self.append((kind, run_id))


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def shop(db: OpenDb) -> Collection:
    with db.begin() as session:
        return make_collection(session, "shop")


def ended(db: OpenDb, kind: RunKind, **values: Any) -> UUID:
    return queued(db, **{"kind": kind, "status": RunStatus.FAILED} | ENDED | values)


def again(db: OpenDb, outbox: Outbox, run_id: UUID) -> Run:
    with db.begin() as session:
        return retry(session, outbox, run_id)


def refusal(db: OpenDb, run_id: UUID) -> RunNotRetryable:
    before = stored(db, run_id)
    with pytest.raises(RunNotRetryable) as caught, db.begin() as session:
        retry(session, Outbox(), run_id)
    after = stored(db, run_id)
    assert (after.status, after.error) == (before.status, before.error)
    assert str(run_id) in str(caught.value)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.CANCELLED])
@pytest.mark.parametrize("kind", [RunKind.TRAIN, RunKind.REGISTER, RunKind.PURGE])
def test_a_run_that_ended_badly_waits_again_with_all_its_attempts(
    db: OpenDb, outbox: Outbox, kind: RunKind, status: RunStatus
) -> None:
    run_id = ended(db, kind, status=status, inputs={"path": "x"}, result={"left": 1})
    found = again(db, outbox, run_id)
    assert (found.status, found.attempts) == (RunStatus.QUEUED, 0)
    row = stored(db, run_id)
    gone = (row.error, row.result, row.lease, row.started_at, row.finished_at)
    assert gone == (None,) * 5
    assert row.queued_at > row.created_at
    assert outbox == [(kind, run_id)]
    assert taken(db, run_id).run.attempts == 1


def test_of_several_that_retry_at_once_one_does(db: OpenDb, outbox: Outbox) -> None:
    run_id = ended(db, RunKind.REGISTER)
    again(db, outbox, run_id)
    assert "is queued" in str(refusal(db, run_id))
    assert len(outbox) == 1


@pytest.mark.parametrize("status", [RunStatus.QUEUED, RunStatus.SUCCEEDED])
def test_a_run_that_did_not_end_badly_is_refused(db: OpenDb, status: RunStatus) -> None:
    error = refusal(db, ended(db, RunKind.REGISTER, status=status))
    assert error.limit == "failed, cancelled"
    assert f"is {status}" in error.message


def test_a_run_in_hand_is_refused(db: OpenDb) -> None:
    held = begun(db, queued(db))
    refusal(db, held.run.id)
    runs.progress(db, held, 1, 2)


def test_an_unknown_run_is_named(db: OpenDb) -> None:
    with pytest.raises(UnknownRun), db.begin() as session:
        retry(session, Outbox(), uuid4())


def ingest(session: Session, shop: Collection, *names: str, text: str = "Tea.") -> Run:
    sources = [SourceDocument(text, external_id=name) for name in names]
    written = write_documents(session, shop, sources)
    inputs = {"documents": [str(one.id) for one in written]}
    return make_run(session, RunKind.INGEST, collection=shop, inputs=inputs)


def statuses(db: OpenDb, run: Run) -> list[DocumentStatus]:
    with db() as session:
        ids = [UUID(value) for value in run.inputs["documents"]]
        return [session.get_one(Document, id_).status for id_ in ids]


def fail(db: OpenDb, run_id: UUID) -> None:
    assert runs.fail(db, begun(db, run_id), DamagedFile("no"), attempts=3)


def test_documents_of_a_failed_ingest_wait_again(
    db: OpenDb, outbox: Outbox, shop: Collection
) -> None:
    with db.begin() as session:
        run = ingest(session, shop, "a", "b")
    fail(db, run.id)
    assert statuses(db, run) == [DocumentStatus.FAILED] * 2
    again(db, outbox, run.id)
    assert statuses(db, run) == [DocumentStatus.PENDING] * 2
    with db() as session:
        assert {row.error for row in session.query(Document)} == {None}


def test_documents_that_were_written_again_are_left_to_their_new_run(
    db: OpenDb, outbox: Outbox, shop: Collection
) -> None:
    with db.begin() as session:
        old = ingest(session, shop, "a", "b")
    fail(db, old.id)
    with db.begin() as session:
        new = ingest(session, shop, "b", text="Coffee.")
    fail(db, new.id)
    again(db, outbox, old.id)
    assert statuses(db, old) == [DocumentStatus.PENDING, DocumentStatus.FAILED]
    again(db, outbox, new.id)
    assert statuses(db, old) == [DocumentStatus.PENDING] * 2


@pytest.mark.parametrize("what", ["written again", "deleted", "indexed"])
def test_an_ingest_with_nothing_left_to_index_is_refused(
    db: OpenDb, shop: Collection, what: str
) -> None:
    with db.begin() as session:
        run = ingest(session, shop, "a")
    fail(db, run.id)
    with db.begin() as session:
        if what == "written again":
            ingest(session, shop, "a", text="Coffee.")
        elif what == "deleted":
            session.query(Document).delete()
        else:
            session.execute(update(Document).values(status=DocumentStatus.INDEXED))
    assert what in refusal(db, run.id).message


def test_a_question_is_asked_again_unless_it_is_gone_or_answered(
    db: OpenDb, outbox: Outbox, shop: Collection
) -> None:
    with db.begin() as session:
        asked = make_question(session, shop)
        run_id = asked.run_id
    held = begun(db, run_id)
    assert runs.cancelled(db, held, Cancelled("stopped"))
    again(db, outbox, run_id)
    assert outbox == [(RunKind.QUERY, run_id)]
    fail(db, run_id)
    with db.begin() as session:
        make_answer(session, asked)
    assert "has left its answer" in refusal(db, run_id).message
    with db.begin() as session:
        session.delete(session.get_one(type(asked), asked.id))
    assert "deleted" in refusal(db, run_id).message


@pytest.mark.parametrize("kind", [RunKind.COMPRESS, RunKind.RECOMPRESS])
def test_a_collection_has_one_of_a_kind_at_most_also_after_a_retry(
    db: OpenDb, outbox: Outbox, shop: Collection, kind: RunKind
) -> None:
    first, second = (ended(db, kind, collection_id=shop.id) for _ in range(2))
    again(db, outbox, first)
    assert "successor" in refusal(db, second).message
    held = taken(db, first)
    assert "successor" in refusal(db, second).message
    with db.begin() as session:
        runs.succeed(session, held, {}, {})
    again(db, outbox, second)


@pytest.mark.parametrize("kind", [RunKind.INGEST, RunKind.COMPRESS, RunKind.RECOMPRESS])
def test_a_run_of_a_deleted_collection_is_refused(db: OpenDb, kind: RunKind) -> None:
    assert "collection" in refusal(db, ended(db, kind, inputs={"documents": []})).message


def test_a_recompression_plans_anew_and_forgets_its_parts(
    db: OpenDb, outbox: Outbox, shop: Collection
) -> None:
    given = {"collection_id": shop.id, "phase": "gate", "details": {"plan": 1}, "done": 7}
    whole = ended(db, RunKind.RECOMPRESS, **given)
    part = ended(db, RunKind.RECOMPRESS_PART, parent_id=whole)
    assert str(whole) in refusal(db, part).message
    again(db, outbox, whole)
    row = stored(db, whole)
    assert (row.phase, row.details, row.done) == ("", {}, 0)
    with db() as session:
        assert session.get(Run, part) is None


def test_a_training_goes_on_where_it_was(db: OpenDb, outbox: Outbox) -> None:
    run_id = ended(db, RunKind.TRAIN, done=40, total=90, details={"loss": 1.5})
    again(db, outbox, run_id)
    row = stored(db, run_id)
    assert (row.done, row.total, row.details) == (40, 90, {"loss": 1.5})


def test_a_night_is_not_repeated_and_its_children_wait_for_its_end(
    db: OpenDb, outbox: Outbox, shop: Collection
) -> None:
    night = ended(db, RunKind.NIGHT, status=RunStatus.RUNNING)
    child = ended(db, RunKind.RECOMPRESS, parent_id=night, collection_id=shop.id)
    assert str(night) in refusal(db, child).message
    with db.begin() as session:
        session.execute(update(Run).where(Run.id == night).values(status=RunStatus.FAILED))
    assert "next night" in str(refusal(db, night))
    again(db, outbox, child)


def test_of_many_those_with_something_to_do_are_queued_and_the_others_told(
    db: OpenDb, outbox: Outbox, shop: Collection
) -> None:
    good = [ended(db, RunKind.REGISTER), ended(db, RunKind.COMPRESS, collection_id=shop.id)]
    bad = [
        ended(db, RunKind.COMPRESS),
        ended(db, RunKind.COMPRESS, collection_id=shop.id),
        ended(db, RunKind.QUERY),
    ]
    with db.begin() as session:
        queued_, refused = retry_all(session, outbox, [*good, *bad])
    assert queued_ == good
    assert [run_id for run_id, _ in refused] == bad
    assert [one for _, one in outbox] == good
    assert {stored(db, run_id).status for run_id in bad} == {RunStatus.FAILED}
    with db() as session:
        waits = session.query(func.count()).select_from(Run).filter_by(status=RunStatus.QUEUED)
        assert waits.scalar() == 2
