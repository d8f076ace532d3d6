from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

import pytest
import torch
from sqlalchemy import create_engine, delete, func, select, update
from sqlalchemy.orm import sessionmaker
from torch import Tensor

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, Latent, Passage
from clara.errors import DatabaseUnavailable
from clara.retrieval import latents
from clara.retrieval.latents import CachedLatents, PostgresLatents
from clara.types import LatentForm

ROWS, WIDTH = 4, 16


@pytest.fixture
def store(db: OpenDb) -> PostgresLatents:
    return PostgresLatents(db)


def make_passages(db: OpenDb, count: int) -> list[UUID]:
    collection, document = uuid4(), uuid4()
    ids = [uuid4() for _ in range(count)]
    with db.begin() as session:
        session.add(Collection(id=collection, name=collection.hex))
        session.flush()
        session.add(
            Document(
                id=document,
                collection_id=collection,
                external_id="d",
                text="x" * count,
                content_hash="",
            )
        )
        session.flush()
        session.add_all(
            Passage(
                id=id_,
                collection_id=collection,
                document_id=document,
                start=n,
                end=n + 1,
                tokens=1,
                text="x",
            )
            for n, id_ in enumerate(ids)
        )
    return ids


def block(seed: int = 0, *, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_a_block_comes_back_bit_for_bit(store: PostgresLatents, db: OpenDb) -> None:
    a, b = make_passages(db, 2)
    special = torch.tensor([[0.0, -0.0, float("inf"), 1e-40]], dtype=torch.bfloat16)
    store.put("f", {a: block(), b: special})
    got = store.get("f", [a, b, uuid4()])
    assert got.keys() == {a, b}
    assert got[a].dtype is torch.bfloat16
    assert got[a].view(torch.int16).equal(block().view(torch.int16))
    assert got[b].view(torch.int16).equal(special.view(torch.int16))


def test_other_types_and_layouts_are_stored_as_bfloat16(store: PostgresLatents, db: OpenDb) -> None:
    (a,) = make_passages(db, 1)
    wide = block(dtype=torch.float32).t().requires_grad_()
    store.put("f", {a: wide})
    assert store.get("f", [a])[a].equal(wide.detach().to(torch.bfloat16))


def test_either_form_is_read_whatever_is_written_now(db: OpenDb) -> None:
    a, b, c = make_passages(db, 3)
    halves, bytes_ = PostgresLatents(db), PostgresLatents(db, form=LatentForm.INT8)
    halves.put("f", {a: block(1), c: block(1)})
    bytes_.put("f", {b: block(2), c: block(3)})
    for store in (halves, bytes_):
        got = store.get("f", [a, b, c])
        assert got[a].equal(block(1))
        assert torch.allclose(got[b].float(), block(2).float(), atol=0.03)
        assert torch.allclose(got[c].float(), block(3).float(), atol=0.03)
    with db() as session:
        rows = session.execute(select(Latent.passage_id, Latent.form, func.length(Latent.block)))
        kept = {row[0]: row[1:] for row in rows}
    assert kept[a] == (LatentForm.BF16, 2 * ROWS * WIDTH)
    assert kept[b] == kept[c] == (LatentForm.INT8, ROWS * (WIDTH + 4))


def test_fingerprints_do_not_see_each_other(store: PostgresLatents, db: OpenDb) -> None:
    (a,) = make_passages(db, 1)
    store.put("f", {a: block(1)})
    store.put("g", {a: block(2)})
    assert store.get("f", [a])[a].equal(block(1))
    assert store.get("g", [a])[a].equal(block(2))
    assert store.get("h", [a]) == {}


def mark(db: OpenDb, passage: UUID, fingerprint: str, *, as_text: bool = True) -> None:
    with db.begin() as session:
        session.execute(
            update(Latent)
            .where(Latent.passage_id == passage, Latent.fingerprint == fingerprint)
            .values(serve_as_text=as_text)
        )


def test_a_block_that_an_audit_marked_is_named_with_its_fingerprint(
    store: PostgresLatents, db: OpenDb
) -> None:
    a, b = make_passages(db, 2)
    for fingerprint in ("f", "g"):
        store.put(fingerprint, {a: block(), b: block()})
    mark(db, a, "f")
    assert store.as_text("f", [a, b, uuid4()]) == {a}
    assert store.as_text("g", [a, b]) == store.as_text("f", []) == set()
    assert store.get("f", [a]).keys() == {a}  # it is read where latents are asked for
    store.put("f", {a: block()})
    assert store.as_text("f", [a]) == {a}


def test_marks_are_remembered_with_their_blocks_and_asked_for_anew_after_a_while(
    store: PostgresLatents, db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(latents, "monotonic", lambda: now[0])
    asked: list[list[UUID]] = []
    cached = CachedLatents(store, max_bytes=2 * block().nbytes, look_s=60)
    read = store.as_text

    def counted(fingerprint: str, passages: Sequence[UUID]) -> set[UUID]:
        asked.append(list(passages))
        return read(fingerprint, passages)

    monkeypatch.setattr(store, "as_text", counted)
    a, b, c = make_passages(db, 3)
    cached.put("f", {one: block() for one in (a, b, c)})
    cached.get("f", [a]), cached.get("f", [b])
    assert cached.as_text("f", [a, b]) == set()
    mark(db, a, "f")
    assert cached.as_text("f", [a, b]) == set()  # as it was
    assert asked == [[a, b]]
    now[0] = 61.0
    assert cached.as_text("f", [a, b]) == {a}
    mark(db, a, "f", as_text=False)
    assert cached.as_text("f", [a, b]) == {a}
    assert cached.as_text("f", [a, c]) == {a}  # of a block that is not kept, nothing is remembered
    assert cached.as_text("f", [c]) == set()
    assert asked == [[a, b], [a, b], [c], [c]]
    cached.get("f", [c])  # pushes out one that was kept
    assert cached.as_text("f", [a]) == set()


def test_writing_twice_replaces(store: PostgresLatents, db: OpenDb) -> None:
    (a,) = make_passages(db, 1)
    store.put("f", {a: block(1)})
    store.put("f", {a: block(2)[:2]})
    assert store.get("f", [a])[a].equal(block(2)[:2])


def test_nothing_in_nothing_out(store: PostgresLatents) -> None:
    store.put("f", {})
    assert store.get("f", []) == {}


def test_a_block_of_another_shape_is_refused(store: PostgresLatents) -> None:
    with pytest.raises(ValueError, match=r"not \(64,\)"):
        store.put("f", {uuid4(): block().flatten()})


def test_a_deleted_passage_is_left_out(store: PostgresLatents, db: OpenDb) -> None:
    (a,) = make_passages(db, 1)
    gone = uuid4()
    store.put("f", {a: block(), gone: block()})
    assert store.get("f", [a, gone]).keys() == {a}


def test_a_passage_that_is_being_deleted_does_not_hold_a_write_up(
    store: PostgresLatents, db: OpenDb
) -> None:
    a, b = make_passages(db, 2)
    with db.begin() as session:
        session.execute(delete(Passage).where(Passage.id == a))
        writing = threading.Thread(target=store.put, args=("f", {a: block(), b: block()}))
        writing.start()
        writing.join(5)
        assert not writing.is_alive()
    assert store.get("f", [a, b]).keys() == {b}


def test_writes_and_deletions_at_once_never_fail(store: PostgresLatents, db: OpenDb) -> None:
    ids = make_passages(db, 60)
    failed: list[Exception] = []

    def write(order: Sequence[UUID]) -> None:
        try:
            for _ in range(5):
                store.put("f", {id_: block() for id_ in order})
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(o,)) for o in (ids, ids[::-1])]
    for each in writers:
        each.start()
    for id_ in ids[::2]:
        with db.begin() as session:
            session.execute(delete(Passage).where(Passage.id == id_))
    for each in writers:
        each.join()
    assert failed == []
    assert store.get("f", ids).keys() == set(ids[1::2])


@pytest.mark.parametrize(
    "damage",
    [
        {"block": block(7).view(torch.uint8).numpy().tobytes()},
        {"block": b"short"},
        {"checksum": 1},
        {"rows": ROWS + 1},
        {"rows": 0, "block": b"", "checksum": 0},
        {"form": LatentForm.INT8},
    ],
)
def test_a_damaged_block_is_logged_deleted_and_left_out(
    store: PostgresLatents,
    db: OpenDb,
    caplog: pytest.LogCaptureFixture,
    damage: Mapping[str, object],
) -> None:
    a, b = make_passages(db, 2)
    store.put("f", {a: block(), b: block()})
    with db.begin() as session:
        session.execute(update(Latent).where(Latent.passage_id == a).values(**damage))
    with caplog.at_level(logging.WARNING):
        assert store.get("f", [a, b]).keys() == {b}
    assert str(a) in caplog.text
    with db() as session:
        assert session.scalar(select(func.count()).select_from(Latent)) == 1


def test_a_database_that_is_away_is_an_error_that_says_so() -> None:
    store = PostgresLatents(sessionmaker(create_engine("postgresql+psycopg://127.0.0.1:9/none")))
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        store.get("f", [uuid4()])


class Counting:
    """A store that says how often it was read."""

    def __init__(self, store: PostgresLatents) -> None:
        self.store = store
        self.read: list[UUID] = []

    def put(self, fingerprint: str, blocks: Mapping[UUID, Tensor]) -> None:
        self.store.put(fingerprint, blocks)

    def get(self, fingerprint: str, passages: Sequence[UUID]) -> dict[UUID, Tensor]:
        self.read += passages
        return self.store.get(fingerprint, passages)


@pytest.fixture
def counting(store: PostgresLatents) -> Counting:
    return Counting(store)


def test_a_block_read_before_comes_from_memory(counting: Counting, db: OpenDb) -> None:
    a, b = make_passages(db, 2)
    counting.put("f", {a: block(1), b: block(2)})
    cached = CachedLatents(counting, max_bytes=10_000)
    cached.get("f", [a])
    got = cached.get("f", [b, a])
    assert counting.read == [a, b]
    assert got[a].equal(block(1))
    assert got[b].equal(block(2))
    assert cached.get("g", [a]) == {}


def test_a_missing_block_is_asked_for_again(counting: Counting, db: OpenDb) -> None:
    (a,) = make_passages(db, 1)
    cached = CachedLatents(counting, max_bytes=10_000)
    assert cached.get("f", [a]) == {}
    cached.put("f", {a: block()})
    assert cached.get("f", [a])[a].equal(block())


def test_memory_is_bounded_and_what_was_read_longest_ago_goes_first(
    counting: Counting, db: OpenDb
) -> None:
    ids = make_passages(db, 4)
    counting.put("f", {id_: block() for id_ in ids})
    size = ROWS * WIDTH * 2
    cached = CachedLatents(counting, max_bytes=3 * size)
    for id_ in (*ids[:3], ids[0], ids[3]):
        cached.get("f", [id_])
    assert cached.bytes == 3 * size
    counting.read.clear()
    cached.get("f", ids)
    assert counting.read == [ids[1]]


def test_a_block_larger_than_the_memory_is_passed_through(counting: Counting, db: OpenDb) -> None:
    (a,) = make_passages(db, 1)
    cached = CachedLatents(counting, max_bytes=10)
    cached.put("f", {a: block()})
    assert cached.get("f", [a])[a].equal(block())
    assert cached.bytes == 0


def test_a_block_written_again_is_not_answered_from_memory(counting: Counting, db: OpenDb) -> None:
    (a,) = make_passages(db, 1)
    cached = CachedLatents(counting, max_bytes=10_000)
    cached.put("f", {a: block(1)})
    cached.get("f", [a])
    cached.put("f", {a: block(2)})
    assert cached.bytes == 0
    assert cached.get("f", [a])[a].equal(block(2))
