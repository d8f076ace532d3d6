from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from clara.db.connect import OpenDb
from clara.db.tables import Run, RunKind, RunStatus
from clara.documents import create_collection
from clara.pipeline.compress import Progress
from tests.workers.test_runs import queued, stored, taken
from workers import compressing as module
from workers.compressing import compress


def compressing(db: OpenDb, *, on_processor: bool) -> Any:
    """Enough for a collection without passages: nothing here computes."""
    return SimpleNamespace(open_db=db, fingerprint="f", on_processor=on_processor)


@pytest.mark.parametrize(
    ("on_processor", "left"), [(True, RunStatus.QUEUED), (False, RunStatus.SUCCEEDED)]
)
def test_on_a_processor_compression_gives_way_to_indexing(
    db: OpenDb, on_processor: bool, left: RunStatus
) -> None:
    with db.begin() as session:
        collection = create_collection(session, "shop")
    ingest = queued(db, kind=RunKind.INGEST, collection_id=collection.id)
    run_id = queued(db, kind=RunKind.COMPRESS, collection_id=collection.id)
    again = compress(taken(db, run_id), compressing(db, on_processor=on_processor))
    assert not again
    assert stored(db, run_id).status is left
    with db.begin() as session:
        session.execute(update(Run).where(Run.id == ingest).values(status=RunStatus.SUCCEEDED))
    if on_processor:
        compress(taken(db, run_id), compressing(db, on_processor=True))
    assert stored(db, run_id).status is RunStatus.SUCCEEDED


def test_compression_of_a_deleted_collection_ends_well(db: OpenDb) -> None:
    run_id = queued(db, kind=RunKind.COMPRESS)
    assert not compress(taken(db, run_id), compressing(db, on_processor=True))
    assert stored(db, run_id).status is RunStatus.SUCCEEDED


def test_compression_is_given_back_when_the_worker_is_told_to_stop(
    db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.begin() as session:
        collection = create_collection(session, "shop")
    pages: list[int] = []

    def pass_by_pages(*_: object, on_batch: Callable[[Progress], None], **__: object) -> Progress:
        for done in range(1, 4):
            pages.append(done)
            on_batch(Progress(done=done, total=9))
        return Progress(done=3, total=9)

    monkeypatch.setattr(module, "compress_collection", pass_by_pages)
    monkeypatch.setattr(module, "_finished", lambda *_: False)  # there is more to do
    monkeypatch.setattr(module, "stopping", lambda: len(pages) == 2)
    run_id = queued(db, kind=RunKind.COMPRESS, collection_id=collection.id)
    assert compress(taken(db, run_id), compressing(db, on_processor=False))
    row = stored(db, run_id)
    assert (pages, row.done, row.total) == ([1, 2], 2, 9)
    assert (row.status, row.attempts, row.lease) == (RunStatus.QUEUED, 0, None)
