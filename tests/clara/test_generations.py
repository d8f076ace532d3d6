"""Which generation answers: the laws of a collection's generations, on a real record."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import (
    Checkpoint,
    Collection,
    Generation,
    GenerationStatus,
    Latent,
)
from clara.errors import UnknownCollection, UnknownGeneration
from clara.generations import Known
from tests.factories import (
    make_checkpoint,
    make_collection,
    make_document,
    make_latent,
    make_passage,
)

ACTIVE, KEPT = GenerationStatus.ACTIVE, GenerationStatus.KEPT
BUILDING, DROPPED = GenerationStatus.BUILDING, GenerationStatus.DROPPED

FINGERPRINTS = ("a", "a", "b", "c")
"""Of the checkpoints of the tests: the first two share their latents."""


@dataclass
class One:
    """A generation of the model."""

    number: int
    checkpoint: int
    status: GenerationStatus
    activated: int = 0

    @property
    def fingerprint(self) -> str:
        return FINGERPRINTS[self.checkpoint]


class Refused(Exception):
    """The model says that an operation is not possible."""


@dataclass
class Model:
    """Plain lists that do what the record should."""

    keep: int
    all: list[One] = field(default_factory=list)
    held: bool = False
    clock: int = 0

    def of(self, *statuses: GenerationStatus) -> list[One]:
        return [one for one in self.all if one.status in statuses]

    def serving(self) -> list[One]:
        return self.of(ACTIVE) + sorted(self.of(KEPT), key=lambda one: -one.activated)

    def new(self, checkpoint: int, status: GenerationStatus) -> One:
        made = One(len(self.all) + 1, checkpoint, status)
        self.all.append(made)
        return made

    def ensure(self, checkpoint: int) -> One:
        if not self.of(ACTIVE):
            self._activate(self.new(checkpoint, KEPT))
        return self.of(ACTIVE)[0]

    def build(self, checkpoint: int) -> One:
        for begun in self.of(BUILDING):
            if begun.checkpoint == checkpoint:
                return begun
            begun.status = DROPPED
        return self.new(checkpoint, BUILDING)

    def switch(self, number: int) -> One:
        one = self._one(number)
        if one.status is DROPPED:
            raise Refused
        if one.status is not ACTIVE:
            self._activate(one)
        return one

    def follow(self, checkpoint: int) -> One | None:
        for active in self.of(ACTIVE):
            if active.checkpoint == checkpoint:
                return active
            if active.fingerprint == FINGERPRINTS[checkpoint]:
                return self._activate(self.new(checkpoint, KEPT))
        return None

    def roll_back(self, to: int | None) -> One:
        wanted = [one for one in self.serving() if one.status is KEPT]
        if to is not None:
            wanted = [one for one in self.serving() if one.number == to]
        if not wanted:
            raise Refused
        self.held = True
        return self.switch(wanted[0].number)

    def drop(self, number: int) -> None:
        one = self._one(number)
        if one.status is not ACTIVE:
            one.status = DROPPED

    def unneeded(self) -> set[str]:
        needed = {one.fingerprint for one in self.of(ACTIVE, KEPT, BUILDING)}
        return {one.fingerprint for one in self.of(DROPPED)} - needed

    def _one(self, number: int) -> One:
        if number > len(self.all):
            raise Refused
        return self.all[number - 1]

    def _activate(self, one: One) -> One:
        for active in self.of(ACTIVE):
            active.status = KEPT
        self.clock += 1
        one.status, one.activated = ACTIVE, self.clock
        for beyond in self.serving()[self.keep :]:
            beyond.status = DROPPED
        return one


@dataclass
class Real:
    """The same operations on the record, each in a transaction of its own."""

    db: OpenDb
    collection: UUID
    checkpoints: list[UUID]
    keep: int

    def ensure(self, checkpoint: int) -> Known:
        with self.db.begin() as session:
            return generations.ensure(session, self.collection, self._row(session, checkpoint))

    def build(self, checkpoint: int) -> Known:
        with self.db.begin() as session:
            row = self._row(session, checkpoint)
            return generations.build(session, self.collection, row, None)

    def switch(self, number: int) -> Known:
        with self.db.begin() as session:
            return generations.switch(session, self._id(session, number), keep=self.keep)

    def follow(self, checkpoint: int) -> Known | None:
        with self.db.begin() as session:
            row = self._row(session, checkpoint)
            return generations.follow(session, self.collection, row, keep=self.keep)

    def roll_back(self, to: int | None) -> Known:
        with self.db.begin() as session:
            return generations.roll_back(session, self.collection, keep=self.keep, to=to)

    def drop(self, number: int) -> None:
        with self.db.begin() as session:
            generations.drop(session, self._id(session, number))

    def rows(self) -> list[Generation]:
        with self.db() as session:
            return list(
                session.scalars(
                    select(Generation)
                    .where(Generation.collection_id == self.collection)
                    .order_by(Generation.number)
                )
            )

    def _row(self, session: object, checkpoint: int) -> Checkpoint:
        return session.get_one(Checkpoint, self.checkpoints[checkpoint])  # type: ignore[attr-defined]

    def _id(self, session: object, number: int) -> UUID:
        found = session.scalar(  # type: ignore[attr-defined]
            select(Generation.id).where(
                Generation.collection_id == self.collection, Generation.number == number
            )
        )
        return found or uuid4()


@pytest.fixture
def checkpoints(db: OpenDb) -> list[UUID]:
    with db.begin() as session:
        return [make_checkpoint(session, fingerprint=one).id for one in FINGERPRINTS]


Make = Callable[..., Real]


@pytest.fixture
def make(db: OpenDb, checkpoints: list[UUID]) -> Make:
    """A new collection."""

    def made(keep: int = 2) -> Real:
        with db.begin() as session:
            return Real(db, make_collection(session).id, checkpoints, keep)

    return made


numbers = st.integers(1, 8)
which = st.integers(0, len(FINGERPRINTS) - 1)
operations = st.one_of(
    st.tuples(st.just("ensure"), which),
    st.tuples(st.just("build"), which),
    st.tuples(st.just("switch"), numbers),
    st.tuples(st.just("follow"), which),
    st.tuples(st.just("roll_back"), st.none() | numbers),
    st.tuples(st.just("drop"), numbers),
)


@given(st.integers(1, 3), st.lists(operations, max_size=14))
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_sequence_leaves_what_a_plain_list_would(
    make: Make, keep: int, sequence: list[tuple[str, int | None]]
) -> None:
    real, model = make(keep), Model(keep)
    for name, argument in sequence:
        try:
            expected = getattr(model, name)(argument)
        except Refused:
            with pytest.raises(UnknownGeneration):
                getattr(real, name)(argument)
            continue
        found = getattr(real, name)(argument)
        assert (found and found.number) == (expected and expected.number), name
        _agree(real, model)


def _agree(real: Real, model: Model) -> None:
    rows = real.rows()
    assert [(row.number, row.status, row.fingerprint) for row in rows] == [
        (one.number, one.status, one.fingerprint) for one in model.all
    ]
    statuses = [row.status for row in rows]
    assert statuses.count(ACTIVE) <= 1
    assert statuses.count(BUILDING) <= 1
    assert statuses.count(ACTIVE) + statuses.count(KEPT) <= model.keep
    with real.db() as session:
        serving = [one.number for one in generations.serving(session, real.collection)]
        assert serving == [one.number for one in model.serving()]
        unneeded = set(generations.unneeded(session, real.collection))
        assert unneeded == model.unneeded()
        assert session.get_one(Collection, real.collection).held is model.held
    assert not unneeded & {row.fingerprint for row in rows if row.status is not DROPPED}


def test_of_many_workers_at_once_one_makes_the_first_generation(make: Make) -> None:
    real = make()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(real.ensure, [0, 1, 2, 3] * 2))
    assert len({one.id for one in found}) == 1
    assert [(row.number, row.status) for row in real.rows()] == [(1, ACTIVE)]


def test_of_many_switches_at_once_one_generation_is_left_active(make: Make) -> None:
    real = make(keep=3)
    real.ensure(0)
    for checkpoint in (2, 3):
        real.switch(real.build(checkpoint).number)

    def back_and_forth(number: int) -> None:
        for _ in range(4):
            real.switch(number)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(back_and_forth, (1, 2, 3)))
    assert sorted(row.status for row in real.rows()) == [ACTIVE, KEPT, KEPT]


def test_of_many_that_follow_at_once_every_one_has_a_number_of_its_own(make: Make) -> None:
    real = make()
    real.ensure(0)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(real.follow, [1, 0, 1, 0, 1, 0]))
    numbers = [row.number for row in real.rows()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_what_is_not_there_is_told_by_name(make: Make, db: OpenDb) -> None:
    real = make()
    with db.begin() as session, pytest.raises(UnknownGeneration, match="no generation has the id"):
        generations.switch(session, uuid4(), keep=2)
    real.ensure(0)
    with pytest.raises(UnknownGeneration, match="no earlier generation"):
        real.roll_back(None)
    with pytest.raises(UnknownGeneration, match="no generation 7") as caught:
        real.roll_back(7)
    assert caught.value.limit == "1"
    real.drop(real.build(2).number)
    with pytest.raises(UnknownGeneration, match="generation 2 was dropped"):
        real.switch(2)
    with db.begin() as session, pytest.raises(UnknownCollection):
        generations.roll_back(session, uuid4(), keep=2)
    real.collection = uuid4()
    with pytest.raises(UnknownCollection):
        real.ensure(0)


def test_a_switch_keeps_what_the_gate_measured(make: Make, db: OpenDb) -> None:
    real = make()
    real.ensure(0)
    measured = {"recall@5": 0.9}
    begun = real.build(2)
    with db.begin() as session:
        generations.switch(session, begun.id, keep=2, gate=measured)
    refused = real.build(3)
    with db.begin() as session:
        generations.drop(session, refused.id, gate={"recall@5": 0.1})
    assert [row.gate for row in real.rows()] == [None, measured, {"recall@5": 0.1}]


def test_a_second_switch_in_a_transaction_that_is_given_up_changes_nothing(make: Make) -> None:
    real = make()
    real.ensure(0)
    begun = real.build(2)
    with real.db() as session:
        generations.switch(session, begun.id, keep=2)
        session.rollback()
    assert [row.status for row in real.rows()] == [ACTIVE, BUILDING]


def test_latents_that_no_generation_needs_are_forgotten_some_at_a_time(
    make: Make, db: OpenDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "FORGET_AT_A_TIME", 2)
    real, other = make(keep=1), make(keep=1)
    for one in (real, other):
        with db.begin() as session:
            document = make_document(session, session.get_one(Collection, one.collection))
            for start in range(3):
                passage = make_passage(session, document, start, start + 5)
                for fingerprint in ("a", "b"):
                    make_latent(session, passage, fingerprint)
        one.ensure(0)
    real.switch(real.build(2).number)
    with db() as session:
        assert generations.unneeded(session, real.collection) == ["a"]
    gone = []
    while not gone or gone[-1]:
        with db.begin() as session:
            gone.append(generations.forget(session, real.collection, "a"))
    assert gone == [2, 1, 0]
    with db() as session:
        rows = session.execute(select(Latent.fingerprint, func.count()).group_by("fingerprint"))
        assert {row[0]: row[1] for row in rows} == {"a": 3, "b": 6}


def test_latents_that_are_needed_again_are_not_forgotten(make: Make, db: OpenDb) -> None:
    real = make(keep=1)
    with db.begin() as session:
        document = make_document(session, session.get_one(Collection, real.collection))
        make_latent(session, make_passage(session, document), "a")
    real.ensure(0)
    real.switch(real.build(2).number)
    real.build(1)  # shares its latents with the one that was dropped
    with db.begin() as session:
        assert generations.forget(session, real.collection, "a") == 0
        assert generations.forget(session, real.collection, "b") == 0
        assert session.scalar(select(func.count()).select_from(Latent)) == 1


def test_generations_go_with_their_collection(make: Make, db: OpenDb) -> None:
    real = make()
    real.ensure(0)
    with db.begin() as session:
        session.delete(session.get_one(Collection, real.collection))
    assert real.rows() == []
