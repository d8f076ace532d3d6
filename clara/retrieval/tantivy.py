"""Lexical search in a folder: the embedded engine, for one machine without a search cluster.

One sub-folder per collection and generation. Any number of processes read; writers take turns by
the engine's own lock. What is committed is seen by the next search of every process.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Any
from uuid import UUID

import tantivy

from clara.errors import IndexMismatch, IndexUnavailable
from clara.retrieval.folders import Folders
from clara.types import Hit, PassageText
from clara.wording import REBUILD

log = logging.getLogger(__name__)

HEAP_BYTES = 64_000_000
"""Most memory of a writer's thread. With the least allowed, 15 MB, a bulk write was cut into many
segments, and merging them took as long as writing them (BENCHMARKS.md, retrieval)."""

MANY = 2_000
"""Passages of one write from which on all threads work at it: each leaves a segment behind, which
a small write would pay for with more merging than it gains."""

THREADS = min(os.cpu_count() or 1, 4)
"""Of a writer that has many passages."""

TIE_BREAKER = 0.3
"""Share of the weaker field's score: best of 0 to 1 by recall at 25. A title boost did harm."""

MAX_WORDS = 256
"""Different words of a question that are searched."""

MAX_OPEN = 64
"""Folders a process keeps open; each costs a thread that the engine starts."""

_MAX_WORD_BYTES = 100
_WORDS = r"[\p{Han}\p{Hiragana}]|[\p{L}\p{M}\p{N}&&[^\p{Han}\p{Hiragana}]]+"
"""Letters, marks and digits in a row; scripts without spaces by the character, as Lucene does."""

_ANALYZER = "clara_english"
_LOCKED = "LockBusy"
_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.3


@dataclass(frozen=True)
class _Open:
    """An opened collection, and the commit it was last read at."""

    index: Any
    commit: bytes


class TantivyIndex:
    """LexicalIndex in a folder; safe to share between threads and between processes.

    Reads and writes go to a collection's active generation, or to the one that is named. Deleting
    concerns every generation.

    Args:
        folder: made when first written to.
        lock_timeout_s: seconds a write waits for other writers of the same collection.
    """

    def __init__(self, folder: Path, *, lock_timeout_s: float = 60.0) -> None:
        self._folders = Folders(folder)
        self._lock_timeout_s = lock_timeout_s
        self._lock = Lock()
        self._open: dict[Path, _Open] = {}

    def put(
        self,
        collection: UUID,
        passages: Sequence[PassageText],
        *,
        generation: int | None = None,
    ) -> None:
        """Write passages by id in one commit; searchable when this returns."""
        if not passages:
            return
        threads = THREADS if len(passages) >= MANY else 1
        path = self._path(collection, generation)
        with self._writing(path, create=True, threads=threads) as writer:
            for passage in {passage.id: passage for passage in passages}.values():
                writer.delete_documents_by_term("id", passage.id.hex)
                writer.add_document(
                    tantivy.Document(
                        id=passage.id.hex,
                        document_id=passage.document_id.hex,
                        title=_utf8(passage.title),
                        text=_utf8(passage.text),
                    )
                )
            writer.commit()

    def delete(
        self, collection: UUID, passages: Iterable[UUID], *, generation: int | None = None
    ) -> None:
        """Remove by id, in one commit each, from every generation or from the one that is named;
        ids that are not there are no error."""
        ids = list(passages)
        every = self._folders.numbers(collection) if ids else []
        for number in every if generation is None else [generation]:
            path = self._folders.path(collection, number)
            if ids and _commit(path):
                with self._writing(path) as writer:
                    for id_ in ids:
                        writer.delete_documents_by_term("id", id_.hex)
                    writer.commit()

    def search(
        self,
        collection: UUID,
        text: str,
        *,
        limit: int,
        only: Collection[UUID] | None = None,
        generation: int | None = None,
    ) -> list[Hit]:
        """Best first; no character of the text has a special meaning."""
        words = list(dict.fromkeys(_analyzer().analyze(_utf8(text))))[:MAX_WORDS]
        if limit < 1 or not words or (index := self._current(collection, generation)) is None:
            return []
        with _explained(self._path(collection, generation)):
            searcher = index.searcher()
            found = searcher.search(_among(only, _query(words)), limit, count=False).hits
            hits = [Hit(UUID(searcher.doc(at)["id"][0]), score) for score, at in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.passage_id))

    def drop(self, collection: UUID) -> None:
        """Remove the collection's folders, after the writers before have finished.

        A damaged one goes too: this is the way out that the error about it names.
        """
        for number in self._folders.numbers(collection):
            self._drop(self._folders.path(collection, number))
        self._folders.forget(collection)

    def count(self, collection: UUID, *, generation: int | None = None) -> int:
        """Passages held."""
        index = self._current(collection, generation)
        return 0 if index is None else int(index.searcher().num_docs)

    def held(self, collection: UUID, document: UUID | None = None) -> set[UUID]:
        """Ids of the passages held by any generation, of one document or of all."""
        query = tantivy.Query.all_query()
        if document is not None:
            query = tantivy.Query.term_query(_schema(), "document_id", document.hex, "basic")
        held: set[UUID] = set()
        for number in self._folders.numbers(collection):
            if (index := self._current(collection, number)) is None:  # dropped meanwhile
                continue
            with _explained(self._folders.path(collection, number)):
                searcher = index.searcher()
                found = searcher.search(query, max(1, searcher.num_docs), count=False).hits
                held |= {UUID(searcher.doc(at)["id"][0]) for _, at in found}
        return held

    def make(self, collection: UUID, generation: int) -> None:
        """An empty generation, where there is none of that number."""
        path = self._folders.path(collection, generation)
        with _explained(path):
            path.mkdir(parents=True, exist_ok=True)
            _open(path)

    def generations(self, collection: UUID) -> dict[int, bool]:
        """Generations there are, smallest first, and whether each is the active one."""
        active = self._folders.active(collection)
        return {one: one == active for one in self._folders.numbers(collection)}

    def switch(self, collection: UUID, generation: int) -> None:
        """Make a generation the active one in one step; the one before stays, to go back to.

        Raises:
            IndexMismatch: there is no such generation.
        """
        there = self._folders.numbers(collection)
        if _commit(self._folders.path(collection, generation)) is None:
            raise IndexMismatch(
                f"{self._folders.path(collection, 1)} has no generation {generation}; there are "
                f"{', '.join(map(str, there)) or 'none'}",
                field=str(self._folders.path(collection, generation)),
                remedy="Build it first: write passages with that generation.",
            )
        with _explained(self._folders.root):
            self._folders.point(collection, generation)

    def drop_generation(self, collection: UUID, generation: int) -> None:
        """Delete one generation; one that is not there is no error.

        Raises:
            IndexMismatch: it is the active one.
        """
        path = self._folders.path(collection, generation)
        if generation == self._folders.active(collection):
            raise IndexMismatch(
                f"generation {generation} of {collection.hex} is the one that is searched",
                field=str(path),
                remedy="Switch to another generation first, or drop the whole collection.",
            )
        self._drop(path)

    def _drop(self, path: Path) -> None:
        if _commit(path) is not None:
            try:
                with self._writing(path):
                    shutil.rmtree(path, ignore_errors=True)
            except (IndexUnavailable, IndexMismatch) as error:
                if error.limit is not None:  # somebody writes for longer than we wait
                    raise
                log.warning("%s is dropped as it is: %s", path, error)
        shutil.rmtree(path, ignore_errors=True)
        with self._lock:
            self._open.pop(path, None)

    def _path(self, collection: UUID, generation: int | None) -> Path:
        """Folder of one generation, or None for the active one."""
        number = self._folders.active(collection) if generation is None else generation
        return self._folders.path(collection, number)

    def _current(self, collection: UUID, generation: int | None) -> Any:
        """The opened index at its newest commit; None where nothing was ever written."""
        path = self._path(collection, generation)
        while (commit := _commit(path)) is None:
            before, path = path, self._path(collection, generation)
            if path == before:  # and not one that gave way and was dropped meanwhile
                break
        with self._lock:
            known = self._open.pop(path, None)
            if commit is None:
                return None
            if known is None or known.commit != commit:
                with _explained(path):
                    index = known.index if known else _open(path)
                    index.reload()
                known = _Open(index, commit)
            self._open[path] = known  # last in line to be closed
            if len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
        return known.index

    @contextmanager
    def _writing(self, path: Path, *, create: bool = False, threads: int = 1) -> Iterator[Any]:
        """A writer, alone in this folder over all processes. What is not committed is lost.

        Opened anew each time: the list of files that may be removed must be the one on disk.
        """
        with _explained(path):
            if create:
                path.mkdir(parents=True, exist_ok=True)
            writer = self._acquire(path, threads)
            try:
                yield writer
            finally:
                writer.wait_merging_threads()  # and lets go of the lock

    def _acquire(self, path: Path, threads: int) -> Any:
        """Wait for the engine's lock."""
        index = _open(path)
        ends = monotonic() + self._lock_timeout_s
        pause = _PAUSE_S
        while True:
            try:
                return index.writer(HEAP_BYTES * threads, threads)
            except ValueError as error:
                if _LOCKED not in str(error):
                    raise
            if monotonic() + pause > ends:
                raise IndexUnavailable(
                    f"another process has been writing to {path} for {self._lock_timeout_s:g} s",
                    field=str(path),
                    limit=self._lock_timeout_s,
                    remedy="Try again; if no worker runs, find the process that holds the folder.",
                )
            sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)


def _commit(path: Path) -> bytes | None:
    """What the engine wrote at its last commit, new at every one; None where there is none."""
    try:
        return (path / "meta.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


@lru_cache(maxsize=1)
def _schema() -> Any:
    """`freq`: no phrases are searched, so positions need not be kept."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("document_id", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("title", tokenizer_name=_ANALYZER, index_option="freq")
    builder.add_text_field("text", tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    """Text to the words that are compared: no stop words, no endings.

    What is left of `it's` and `don't` after the apostrophe is no word either.
    """
    filters = [
        tantivy.Filter.remove_long(_MAX_WORD_BYTES),
        tantivy.Filter.lowercase(),
        tantivy.Filter.stopword("english"),
        tantivy.Filter.custom_stopword(["s", "t"]),
        tantivy.Filter.stemmer("english"),
    ]
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(_WORDS))
    for each in filters:
        builder = builder.filter(each)
    return builder.build()


def _open(path: Path) -> Any:
    """The index of a folder, made where the folder is empty."""
    index = tantivy.Index(_schema(), path=str(path))
    index.register_tokenizer(_ANALYZER, _analyzer())
    index.config_reader("manual")
    return index


def _query(words: Sequence[str]) -> Any:
    """Any of the words, in either field. Built by hand: no parser ever sees what a user wrote."""
    fields = [
        tantivy.Query.boolean_query(
            [
                (tantivy.Occur.Should, tantivy.Query.term_query(_schema(), field, word, "freq"))
                for word in words
            ]
        )
        for field in ("title", "text")
    ]
    return tantivy.Query.disjunction_max_query(fields, TIE_BREAKER)


def _among(only: Collection[UUID] | None, query: Any) -> Any:
    """The query over some passages only; they change no score. 30 microseconds for each."""
    if only is None:
        return query
    ids = tantivy.Query.term_set_query(_schema(), "id", [id_.hex for id_ in only])
    both = [query, tantivy.Query.const_score_query(ids, 0.0)]
    return tantivy.Query.boolean_query([(tantivy.Occur.Must, part) for part in both])


def _utf8(text: str) -> str:
    """Without half surrogates, which are no text."""
    return text.encode("utf-8", "ignore").decode()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """The engine's errors in our words."""
    try:
        yield
    except IndexUnavailable:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        if "schema does not match" in str(error):
            raise IndexMismatch(
                f"{path} was written by another release",
                field=str(path),
                remedy=REBUILD,
            ) from error
        raise IndexUnavailable(
            f"the index in {path} cannot be used: {error}",
            field=str(path),
            remedy=f"Check space and permissions; if its files are damaged: {REBUILD}",
        ) from error
