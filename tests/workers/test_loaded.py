"""Which checkpoints a process holds, and which of them answers for a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event
from time import monotonic
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import Checkpoint, Collection, GenerationStatus
from clara.errors import (
    CheckpointMismatch,
    InvalidCheckpoint,
    ModelMissing,
    UnknownCheckpoint,
    UnknownCollection,
)
from clara.pipeline.asking import Answering, Limits
from clara.serving.engine import Engine
from tests.factories import make_checkpoint, make_collection
from workers import evicting, refusals, stopping
from workers import loaded as module
from workers.loaded import Loaded

LIMITS = Limits(5, 5, 5, -1.0, 100)
PATIENCE_S = 10.0


class Role:
    """Stands for a compressor, a reasoner or a generator."""


def models_of(row: Checkpoint) -> Any:
    config = SimpleNamespace(doc_max_length=32)
    return SimpleNamespace(
        compressor=Role(),
        reasoner=Role(),
        generator=Role(),
        fingerprint=row.fingerprint,
        checkpoint=SimpleNamespace(name=row.name, trained=True, config=config),
        device=SimpleNamespace(type="cpu"),
    )


@dataclass
class Disk:
    """Where checkpoints come from: some are gone, some take their time."""

    gone: dict[UUID, Exception] = field(default_factory=dict)
    large: dict[UUID, Exception] = field(default_factory=dict)
    slow: dict[UUID, Event] = field(default_factory=dict)
    read: list[UUID] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    fingerprints: dict[UUID, str] = field(default_factory=dict)

    def find(self, row: Checkpoint) -> Callable[[], Any]:
        self.read.append(row.id)
        if row.id in self.slow:
            assert self.slow[row.id].wait(PATIENCE_S)
        if row.id in self.gone:
            raise self.gone[row.id]
        return lambda: self.load(row)

    def load(self, row: Checkpoint) -> Any:
        from threading import current_thread

        self.threads.append(current_thread().name)
        if row.id in self.large:
            raise self.large[row.id]
        made = models_of(row)
        made.fingerprint = self.fingerprints.get(row.id, row.fingerprint)
        return made


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def default(db: OpenDb) -> Checkpoint:
    with db.begin() as session:
        return make_checkpoint(session, name="default", fingerprint="d", path="/d")


@pytest.fixture
def holding(db: OpenDb, disk: Disk, default: Checkpoint) -> Iterator[Callable[..., Loaded]]:
    """Makes a Loaded with room for so many checkpoints."""
    engine, loader = Engine(), Engine(name="loader")

    def serve(row: Checkpoint, models: Any) -> Answering:
        rest: Any = None
        return Answering(db, rest, rest, rest, rest, rest, models, engine, rest, row.id, LIMITS)

    def make(bound: int = 2) -> Loaded:
        return Loaded(
            db,
            engine=engine,
            loader=loader,
            find=disk.find,
            serve=serve,
            default=lambda session: session.get_one(Checkpoint, default.id),
            bound=bound,
        )

    yield make
    for event in disk.slow.values():
        event.set()
    engine.close(drain=False)
    loader.close(drain=False)


def made(db: OpenDb, **values: Any) -> UUID:
    with db.begin() as session:
        return make_checkpoint(session, **({"path": "/weights"} | values)).id


def collection(db: OpenDb) -> UUID:
    with db.begin() as session:
        return make_collection(session).id


def answering_from(db: OpenDb, where: UUID, *checkpoints: UUID) -> list[UUID]:
    """Generations of these checkpoints, one after the other; the last one is active."""
    ids = []
    with db.begin() as session:
        first, *others = [session.get_one(Checkpoint, one) for one in checkpoints]
        ids.append(generations.ensure(session, where, first).id)
        for other in others:
            begun = generations.build(session, where, other, None)
            ids.append(generations.switch(session, begun.id, keep=9).id)
    return ids


def until(condition: Callable[[], object]) -> None:
    pause = Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("waited too long")


def test_a_checkpoint_is_loaded_once_and_then_at_hand(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    loaded, one = holding(), made(db)
    assert loaded.peek(one) is None
    first = loaded.get(one)
    assert first.checkpoint_id == one
    assert loaded.get(one) is loaded.peek(one) is first
    assert disk.read == [one]
    with pytest.raises(UnknownCheckpoint):
        loaded.get(uuid4())


def test_the_first_is_loaded_where_all_cores_are_and_others_beside_it(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    loaded = holding()
    for one in (made(db), made(db)):
        loaded.get(one)
    alone = holding(bound=1)
    for one in (made(db), made(db)):
        alone.get(one)
    assert disk.threads == ["clara-engine", "loader", "clara-engine", "clara-engine"]


def test_many_that_ask_at_once_wait_for_one_load(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    loaded, one = holding(), made(db)
    disk.slow[one] = Event()
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(loaded.get, one) for _ in range(6)]
        until(lambda: disk.read)
        disk.slow[one].set()
        assert len({id(future.result()) for future in waiting}) == 1
    assert disk.read == [one]


def test_the_one_used_longest_ago_makes_room_and_its_models_go(
    db: OpenDb, holding: Callable[..., Loaded]
) -> None:
    import weakref

    loaded = holding()
    a, b, c = made(db), made(db), made(db)
    role = weakref.ref(loaded.get(a).models.generator)
    loaded.get(b)
    loaded.get(a)
    loaded.get(c)
    assert [loaded.peek(one) is not None for one in (a, b, c)] == [True, False, True]
    loaded.get(b)
    assert [loaded.peek(one) is not None for one in (a, b, c)] == [False, True, True]
    assert role() is None


def test_what_is_in_hand_keeps_its_models_and_holds_nobody_up_for_ever(
    db: OpenDb, holding: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evicting.Evicted.wait, "__kwdefaults__", {"patience_s": 0.05})
    loaded = holding(bound=1)
    in_hand = loaded.get(made(db))
    other = made(db)
    assert loaded.get(other).checkpoint_id == other
    assert isinstance(in_hand.models.generator, Role)
    assert loaded.peek(in_hand.checkpoint_id) is None


def test_what_generations_need_is_the_last_to_go(
    db: OpenDb, holding: Callable[..., Loaded]
) -> None:
    loaded = holding()
    needed, spare, third = made(db), made(db), made(db)
    answering_from(db, collection(db), needed)
    loaded.get(needed)
    loaded.get(spare)
    loaded.look()
    loaded.get(third)
    assert loaded.peek(needed)
    assert not loaded.peek(spare)


def test_one_that_cannot_be_loaded_says_why_and_is_left_alone_for_a_while(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, one = holding(), made(db)
    disk.gone[one] = ModelMissing("no model at '/weights'", field="/weights", remedy="Put it back.")
    for _ in range(2):
        with pytest.raises(ModelMissing, match="/weights") as caught:
            loaded.get(one)
        assert (caught.value.field, caught.value.remedy) == ("/weights", "Put it back.")
        assert caught.value.__context__ is None
    loaded.load_soon(one)
    assert disk.read == [one]
    now = [monotonic()]
    monkeypatch.setattr(refusals, "monotonic", lambda: now[0])
    for seconds in (31, 61, 121):  # longer each time
        now[0] += seconds - 2
        with pytest.raises(ModelMissing):
            loaded.get(one)
        before = len(disk.read)
        now[0] += 2
        with pytest.raises(ModelMissing):
            loaded.get(one)
        assert len(disk.read) == before + 1
    disk.gone.clear()
    now[0] += refusals.MOST_S
    assert loaded.get(one).checkpoint_id == one


def test_an_error_nobody_foresaw_names_the_checkpoint(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    loaded, one = holding(), made(db, name="large")
    disk.large[one] = RuntimeError("out of memory")
    with pytest.raises(InvalidCheckpoint, match=r"large .* RuntimeError: out of memory"):
        loaded.get(one)


def test_one_that_is_gone_pushes_nothing_out(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    loaded, one, gone = holding(bound=1), made(db), made(db)
    loaded.get(one)
    disk.gone[gone] = ModelMissing("gone")
    with pytest.raises(ModelMissing):
        loaded.get(gone)
    assert loaded.peek(one)


def test_a_row_takes_the_fingerprint_of_the_precision_it_is_loaded_in(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    loaded, one = holding(), made(db, fingerprint="float32")
    disk.fingerprints[one] = "bfloat16"
    loaded.get(one)
    with db() as session:
        assert session.get_one(Checkpoint, one).fingerprint == "bfloat16"


def test_a_collection_without_a_generation_gets_the_default_one(
    db: OpenDb, holding: Callable[..., Loaded], default: Checkpoint
) -> None:
    loaded, where = holding(), collection(db)
    ready, known = loaded.serving(where)
    assert (ready.checkpoint_id, known.checkpoint_id, known.number) == (default.id, default.id, 1)
    assert loaded.generation(where) == known
    with pytest.raises(UnknownCollection):
        loaded.serving(uuid4())


def test_until_the_active_checkpoint_is_loaded_the_one_before_answers(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    loaded, where = holding(), collection(db)
    a, b = made(db, fingerprint="a"), made(db, fingerprint="b")
    loaded.get(a)
    disk.slow[b] = Event()
    first, second = answering_from(db, where, a, b)
    ready, known = loaded.serving(where)
    assert (ready.checkpoint_id, known.id, known.status) == (a, first, GenerationStatus.KEPT)
    disk.slow[b].set()
    until(lambda: loaded.peek(b))
    ready, known = loaded.serving(where)
    assert (ready.checkpoint_id, known.id) == (b, second)


def test_a_rollback_answers_at_once_from_the_checkpoint_that_is_still_there(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    loaded, where = holding(), collection(db)
    a, b = made(db, fingerprint="a"), made(db, fingerprint="b")
    first, _ = answering_from(db, where, a, b)
    loaded.get(a)
    loaded.get(b)
    with db.begin() as session:
        generations.roll_back(session, where, keep=2)
    ready, known = loaded.serving(where)
    assert (ready.checkpoint_id, known.id) == (a, first)
    assert disk.read == [a, b]


def test_a_checkpoint_that_is_gone_leaves_the_answers_to_the_one_before(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    loaded, where = holding(), collection(db)
    a, b = made(db, fingerprint="a"), made(db, fingerprint="b")
    first, _ = answering_from(db, where, a, b)
    disk.gone[b] = ModelMissing("gone")
    for _ in range(2):  # nothing is loaded at first, then the one before is
        ready, known = loaded.serving(where)
        assert (ready.checkpoint_id, known.id) == (a, first)
    assert disk.read == [b, a]
    with pytest.raises(ModelMissing):
        loaded.active(where)


def test_where_no_generations_checkpoint_is_left_the_default_one_answers_over_its_own_latents(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk, default: Checkpoint
) -> None:
    where = collection(db)
    a, b = made(db, fingerprint="a"), made(db, fingerprint="b")
    _, active = answering_from(db, where, a, b)
    disk.gone = {a: ModelMissing("gone too"), b: CheckpointMismatch("other weights by now")}
    ready, known = holding().serving(where)
    assert (ready.checkpoint_id, ready.fingerprint, known.id) == (default.id, "d", active)
    disk.gone[default.id] = ModelMissing("gone as well")
    with pytest.raises(CheckpointMismatch, match="other weights by now"):
        holding().serving(where)


def test_latents_of_another_precision_are_read_by_their_own_name(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    loaded, where = holding(), collection(db)
    one = made(db, fingerprint="float32")
    answering_from(db, where, one)
    disk.fingerprints[one] = "bfloat16"
    ready, known = loaded.serving(where)
    assert (ready.fingerprint, known.fingerprint) == ("float32", "float32")
    assert ready.models.fingerprint == "bfloat16"
    assert loaded.get(one).fingerprint == loaded.compressing(one).fingerprint == "bfloat16"


def test_the_watch_loads_what_is_active_and_no_more_than_there_is_room_for(
    db: OpenDb, holding: Callable[..., Loaded], disk: Disk
) -> None:
    a, b, c = made(db), made(db), made(db)
    old = answering_from(db, collection(db), made(db), a)
    assert old
    loaded = holding()
    loaded.look()
    until(lambda: loaded.peek(a))
    assert disk.read == [a]  # not the one that is only kept
    answering_from(db, collection(db), b)
    answering_from(db, collection(db), c)
    for _ in range(3):
        loaded.look()
        until(lambda: not loaded._loading)
    assert len(disk.read) == 2  # the third would push out one that is needed
    assert loaded.peek(a)


def test_watching_outlives_a_database_that_is_away_and_ends_with_the_process(
    db: OpenDb, holding: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clara.db.connect import connect, open_db

    monkeypatch.setattr(module, "LOOK_S", 0.01)
    loaded, one = holding(), made(db)
    there, away = loaded._open_db, open_db(connect("postgresql://nobody@127.0.0.1:1/nothing"))
    loaded._open_db = away
    stopping._STOPPING.clear()
    thread = loaded.watch()
    thread.join(0.2)
    assert thread.is_alive()
    answering_from(db, collection(db), one)
    loaded._open_db = there
    until(lambda: loaded.peek(one))
    stopping._STOPPING.set()
    thread.join(PATIENCE_S)
    stopping._STOPPING.clear()
    assert not thread.is_alive()


def test_a_deleted_collection_is_told_by_name(db: OpenDb, holding: Callable[..., Loaded]) -> None:
    loaded, where = holding(), collection(db)
    loaded.serving(where)
    with db.begin() as session:
        session.delete(session.get_one(Collection, where))
    with pytest.raises(UnknownCollection):
        loaded.generation(where)
