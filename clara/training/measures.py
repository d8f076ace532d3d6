"""What is worth knowing of valid records: lengths, repetitions, answers no document holds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from clara.evidence import LETTERS, UNSPACED
from clara.passages import FastTokenizer
from clara.training.records import CompressionRecord, QuestionRecord, Record, Stage
from clara.training.report import Lengths, Note, Report

REMEMBERED_TEXTS = 2**16
"""Texts whose length is kept: the same document is a candidate of many questions."""

WORD = re.compile(rf"[{UNSPACED}]|{LETTERS}")
YES_NO = ("yes", "no")
"""Answers that are true of documents without being written in them."""


class Measures:
    """Adds records to a report one by one, and remembers what has to be compared."""

    def __init__(
        self, report: Report, tokenizer: FastTokenizer | None, generation_top_k: int
    ) -> None:
        self.report = report
        self.top_k = generation_top_k
        count = tokenizer.count if tokenizer else _count_words
        self.length: Callable[[str], int] = lru_cache(REMEMBERED_TEXTS)(count)
        self.ids: set[int] = set()
        """Hashes of 64 bits; two texts share one by chance once in some 10^19 pairs."""
        self.contents: set[int] = set()

    def add(self, record: Record) -> None:
        """Count one record without a fault."""
        self.report.records += 1
        self.report.sources[record.source] += 1
        if isinstance(record, CompressionRecord):
            self._compression(record)
        else:
            self._question(record)

    def finish(self) -> None:
        """Count what shows only once all records are in."""
        usual = self.report.documents_per_record.most_common(1)
        if usual:
            self.report.notes[Note.UNEQUAL_CANDIDATES] = self.report.records - usual[0][1]

    def _compression(self, record: CompressionRecord) -> None:
        self.report.kinds[record.kind] += 1
        self._repetitions(record.id, (record.document, record.pairs, record.restatement))
        self._documents([record.document])
        for question, answer in record.pairs:
            self._length("questions", question)
            self._length("answers", answer)
            self._note(Note.ANSWERS_ELSEWHERE, not holds([record.document], answer))
        if record.restatement:
            self._length("restatements", record.restatement)

    def _question(self, record: QuestionRecord) -> None:
        self._repetitions(record.id, (record.question, record.documents, record.answer))
        self._documents(record.documents)
        self._length("questions", record.question, over=Note.LONG_QUESTIONS)
        self._length("answers", record.answer)
        self._note(Note.NO_POSITIVES, not record.positives)
        self._note(Note.ANSWERS_ELSEWHERE, not holds(_likely_first(record), record.answer))
        if self.report.stage is Stage.END_TO_END:
            self._note(Note.NOTHING_TO_CHOOSE, len(record.documents) <= self.top_k)

    def _documents(self, documents: Iterable[str]) -> None:
        found = list(documents)
        self.report.documents_per_record[len(found)] += 1
        self._note(Note.REPEATED_DOCUMENTS, len(set(found)) < len(found))
        for document in found:
            self._length("documents", document, over=Note.LONG_DOCUMENTS)

    def _length(self, name: str, text: str, *, over: Note | None = None) -> None:
        length = self.length(text)
        self.report.lengths.setdefault(name, Lengths()).add(length)
        if over:
            self._note(over, length > self.report.doc_max_length)

    def _repetitions(self, name: str, content: object) -> None:
        self._note(Note.REPEATED_IDS, _is_known(self.ids, name))
        self._note(Note.REPEATED_RECORDS, _is_known(self.contents, content))

    def _note(self, note: Note, is_so: bool) -> None:
        self.report.notes[note] += is_so


def holds(documents: Iterable[str], answer: str) -> bool:
    """Whether an answer stands in any of the documents, as whole words; case and accents aside.

    Yes and no are held by every document, since they are never looked up.
    """
    wanted = _folded(answer)
    if wanted.strip() in YES_NO:
        return True
    if not wanted.strip():  # only signs, such as "%"
        return any(answer in document for document in documents)
    return any(wanted in _folded(document) for document in documents)


def _folded(text: str) -> str:
    """Words in one way of writing, a space around each."""
    if not text.isascii():
        apart = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in apart if not unicodedata.combining(c))
    return f" {' '.join(WORD.findall(text.casefold()))} "


def _likely_first(record: QuestionRecord) -> Iterator[str]:
    """The documents, those that should hold the answer first: it saves looking at the others."""
    yield from (record.documents[i] for i in record.positives)
    yield from (d for i, d in enumerate(record.documents) if i not in record.positives)


def _is_known(seen: set[int], content: object) -> bool:
    """Whether something was seen before; from now on it was."""
    key = hash(content)
    known = key in seen
    seen.add(key)
    return known


def _count_words(text: str) -> int:
    return len(text.split())
