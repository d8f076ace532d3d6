"""A lexical index made anew beside the one that is searched, while others write and delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, select

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Document, Passage
from clara.documents import create_collection, find_collection, write_documents
from clara.errors import Cancelled, UnknownCollection
from clara.pipeline import rebuild
from clara.pipeline.index import Indexing, remove_passages
from clara.pipeline.rebuild import Copied, Words, words
from clara.retrieval.ports import LexicalIndex
from clara.types import SourceDocument
from tests.clara.pipeline.conftest import DOC_MAX_LENGTH, index


def no(number: int) -> SourceDocument:
    return SourceDocument(f"Crane number {number}.", external_id=f"crane-{number}")


@pytest.fixture
def collection(db: OpenDb) -> UUID:
    with db.begin() as session:
        return create_collection(session, "harbour").id


@pytest.fixture
def harbour(
    db: OpenDb,
    collection: UUID,
    indexing: Indexing,
    lexical: LexicalIndex,
    monkeypatch: pytest.MonkeyPatch,
) -> Harbour:
    """Seven documents of one passage, in the lexical index of each kind in turn."""
    monkeypatch.setattr(rebuild, "PAGE", 2)
    made = Harbour(db, collection, replace(indexing, lexical=lexical))
    made.write(range(7))
    return made


class Harbour:
    def __init__(self, db: OpenDb, collection: UUID, indexing: Indexing) -> None:
        self.db, self.collection, self.indexing = db, collection, indexing

    @property
    def lexical(self) -> LexicalIndex:
        return self.indexing.lexical

    def write(self, numbers: Sequence[int], *, through: LexicalIndex | None = None) -> None:
        """Store and index documents, as an ingest run does."""
        with self.db.begin() as session:
            here = find_collection(session, "harbour")
            ids = [one.id for one in write_documents(session, here, [no(n) for n in numbers])]
        index(ids, replace(self.indexing, lexical=through or self.lexical))

    def begin(self) -> Copied:
        return Copied(rebuild.begin(self.db, self.collection, self.lexical))

    def copy(self, copied: Copied, **options: Any) -> bool:
        given: dict[str, Any] = {
            "budget_s": 60.0,
            "on_page": lambda _: None,
            "stopped": lambda: False,
            "lexical": self.lexical,
        }
        return rebuild.copy(
            self.collection,
            copied,
            open_db=self.db,
            tokenizer=self.indexing.tokenizer,
            doc_max_length=DOC_MAX_LENGTH,
            **given | options,
        )

    def take_over(self, copied: Copied) -> None:
        with self.db.begin() as session:
            rebuild.end(session, self.collection, copied.number)
            self.lexical.switch(self.collection, copied.number)

    def recorded(self) -> set[UUID]:
        with self.db() as session:
            return set(session.scalars(select(Passage.id)))

    def found(self, **options: Any) -> set[UUID]:
        where: Any = self.lexical
        hits = where.search(self.collection, "crane", limit=99, **options)
        return {hit.passage_id for hit in hits}

    def words(self) -> Words | None:
        with self.db() as session:
            return words(session, self.collection)


class Interrupted:
    """LexicalIndex over another, which does something else before or after its first write."""

    def __init__(
        self,
        lexical: LexicalIndex,
        *,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self._lexical, self._before, self._after = lexical, before, after
        self.writes = 0

    def put(self, *given: Any, **options: Any) -> None:
        self.writes += 1
        if self.writes == 1:
            self._before()
        self._lexical.put(*given, **options)
        if self.writes == 1:
            self._after()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lexical, name)


def test_a_copy_holds_what_the_record_holds_and_takes_over(harbour: Harbour) -> None:
    copied = harbour.begin()
    assert harbour.words() == Words(2, 2)
    assert harbour.copy(copied)
    assert copied.passages == 7
    assert harbour.found(generation=2) == harbour.recorded()
    assert rebuild.is_whole(harbour.db, harbour.collection, harbour.lexical, 2)
    harbour.take_over(copied)
    assert harbour.words() == Words(2, None)
    assert harbour.found() == harbour.recorded()
    assert harbour.lexical.generations(harbour.collection) == {1: False, 2: True}


def test_what_is_written_while_it_is_copied_is_in_both(harbour: Harbour) -> None:
    copied = harbour.begin()
    late = iter([100, 101, 102])

    def write(_: Copied) -> None:
        if number := next(late, None):
            harbour.write([number, 3])  # a new one, and one that is there already

    harbour.copy(copied, on_page=write)
    assert len(harbour.recorded()) == 10
    assert harbour.found() == harbour.found(generation=2) == harbour.recorded()


def test_who_wrote_before_it_was_begun_and_commits_after_writes_again(harbour: Harbour) -> None:
    begun: list[Copied] = []

    def begin_and_copy() -> None:
        begun.append(harbour.begin())
        harbour.copy(begun[0])

    writer: Any = Interrupted(harbour.lexical, after=begin_and_copy)
    harbour.write([7], through=writer)
    assert writer.writes == 3  # to the first; to it again, and to the second
    assert harbour.found(generation=2) == harbour.found() == harbour.recorded()


def test_who_wrote_before_it_was_begun_and_commits_after_it_took_over_writes_again(
    harbour: Harbour,
) -> None:
    def begin_copy_and_switch() -> None:
        copied = harbour.begin()
        harbour.copy(copied)
        harbour.take_over(copied)

    writer: Any = Interrupted(harbour.lexical, after=begin_copy_and_switch)
    harbour.write([7], through=writer)
    assert len(harbour.recorded()) == 8
    assert harbour.found() == harbour.recorded()


def test_what_is_deleted_between_reading_and_writing_is_not_in_it(harbour: Harbour) -> None:
    copied = harbour.begin()
    gone: list[UUID] = []

    def delete_one() -> None:
        with harbour.db.begin() as session:
            first = select(Passage.id).order_by(Passage.id).limit(1)
            gone.append(session.scalars(first).one())
            session.execute(delete(Passage).where(Passage.id == gone[0]))
        remove_passages(harbour.collection, gone, harbour.indexing)

    copier: Any = Interrupted(harbour.lexical, before=delete_one)
    assert harbour.copy(copied, lexical=copier)
    assert len(harbour.recorded()) == 6
    assert harbour.found(generation=2) == harbour.recorded()
    assert gone[0] not in harbour.lexical.held(harbour.collection)


def test_a_copy_that_is_broken_off_goes_on_where_it_was(harbour: Harbour) -> None:
    copied = harbour.begin()
    with pytest.raises(Cancelled, match="stopped"):
        harbour.copy(copied, stopped=lambda: copied.passages >= 4)
    assert (copied.passages, harbour.lexical.count(harbour.collection, generation=2)) == (4, 4)
    assert not harbour.copy(copied, budget_s=0.0)
    assert not rebuild.is_whole(harbour.db, harbour.collection, harbour.lexical, 2)
    again = Copied(copied.number, copied.after, copied.passages)
    assert harbour.copy(again)
    assert again.passages == 7
    assert harbour.found(generation=2) == harbour.recorded()


def test_each_one_has_a_number_of_its_own_and_strays_are_deleted(harbour: Harbour) -> None:
    first = harbour.begin()
    second = harbour.begin()  # the first was given up by a worker that died
    assert (first.number, second.number) == (2, 3)
    harbour.copy(second)
    assert rebuild.drop_strays(harbour.db, harbour.collection, harbour.lexical) == 1
    assert harbour.lexical.generations(harbour.collection) == {1: True, 3: False}
    harbour.take_over(second)
    assert rebuild.drop_strays(harbour.db, harbour.collection, harbour.lexical) == 1
    assert rebuild.drop_strays(harbour.db, harbour.collection, harbour.lexical) == 0
    assert harbour.lexical.generations(harbour.collection) == {3: True}
    assert harbour.found() == harbour.recorded()
    assert harbour.begin().number == 4


def test_one_of_an_empty_collection_takes_over_too(harbour: Harbour) -> None:
    with harbour.db.begin() as session:
        session.execute(delete(Document))
    harbour.lexical.drop(harbour.collection)
    copied = harbour.begin()
    assert harbour.copy(copied)
    harbour.take_over(copied)
    harbour.write([1])
    assert harbour.found() == harbour.recorded() != set()


def test_a_collection_that_is_gone_has_none(harbour: Harbour) -> None:
    with harbour.db.begin() as session:
        session.execute(delete(Collection))
    assert harbour.words() is None
    with pytest.raises(UnknownCollection):
        harbour.begin()
    assert rebuild.drop_strays(harbour.db, harbour.collection, harbour.lexical) == 0
