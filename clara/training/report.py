"""What a look at a file of training records found: faults, counts worth knowing, lengths."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from clara.texts import printable
from clara.training.faults import Fault, FaultKind
from clara.training.records import Stage

KEPT = 100_000
"""Faults kept with their places; past that they are only counted, so that memory has a bound."""

BINS = (8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1024, 2048)
"""Longest length of each bin of a histogram; one more holds what is longer still."""


class Note(StrEnum):
    """Counts that are no faults but may be a surprise; the value is what is counted."""

    LONG_DOCUMENTS = "documents over the length limit"
    LONG_QUESTIONS = "questions over the length limit"
    REPEATED_IDS = "records with the id of an earlier one"
    REPEATED_RECORDS = "records with the content of an earlier one"
    REPEATED_DOCUMENTS = "records that hold a document twice"
    ANSWERS_ELSEWHERE = "answers not written in any of their documents"
    NO_POSITIVES = "records that do not say which documents hold the answer"
    UNEQUAL_CANDIDATES = "records with another number of documents than most"
    NOTHING_TO_CHOOSE = "records with no more documents than are chosen"


class Lengths:
    """How long texts are; keeps a count for each length, not the texts."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, length: int) -> None:
        """Count one text."""
        self.counts[length] += 1

    @property
    def total(self) -> int:
        """Texts counted."""
        return self.counts.total()

    @property
    def longest(self) -> int:
        """Length of the longest; 0 without any."""
        return max(self.counts, default=0)

    @property
    def mean(self) -> float:
        """0 without any."""
        return sum(length * count for length, count in self.counts.items()) / max(1, self.total)

    def quantile(self, part: float) -> int:
        """The shortest length that at least `part` of the texts do not pass; 0 without any."""
        reached = 0
        for length, count in sorted(self.counts.items()):
            reached += count
            if reached >= part * self.total:
                return length
        return 0

    def bins(self) -> list[tuple[int, int | None, int]]:
        """Every bin: shortest length in it, longest length in it, texts."""
        edges = pairwise([-1, *BINS])
        closed = [(below + 1, top, self._between(below, top)) for below, top in edges]
        return [*closed, (BINS[-1] + 1, None, self._between(BINS[-1], math.inf))]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "texts": self.total,
            "mean": round(self.mean, 1),
            "median": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "longest": self.longest,
            "bins": [{"from": low, "to": high, "texts": n} for low, high, n in self.bins()],
        }

    def _between(self, below: int, top: float) -> int:
        return sum(count for length, count in self.counts.items() if below < length <= top)


@dataclass
class Report:
    """One file, looked at as records of one stage."""

    path: Path
    stage: Stage
    unit: str
    """What lengths are counted in: `tokens` or `words`."""
    doc_max_length: int
    """Tokens the compressor reads of a text; words are held against it where there are no tokens,
    so that the counts over the limit are then too low."""
    records: int = 0
    """Lines that hold a record without a fault."""
    faulty_lines: int = 0
    """Lines with at least one."""
    faults: list[Fault] = field(default_factory=list)
    """In the order of the file, the first KEPT of them."""
    fault_counts: Counter[FaultKind] = field(default_factory=Counter)
    notes: Counter[Note] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    """Records by the data set they name."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Records of stage 1 by kind."""
    documents_per_record: Counter[int] = field(default_factory=Counter)
    lengths: dict[str, Lengths] = field(default_factory=dict)
    """By what they are lengths of: documents, questions, answers, restatements."""
    _last_line: int | None = field(default=None, init=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether training may read the file."""
        return not self.fault_counts

    def add(self, fault: Fault) -> None:
        """Note a fault; those of one line come after one another."""
        self.faulty_lines += fault.line not in (None, self._last_line)
        self._last_line = fault.line
        self.fault_counts[fault.kind] += 1
        if len(self.faults) < KEPT:
            self.faults.append(fault)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": printable(str(self.path)),
            "stage": int(self.stage),
            "ok": self.ok,
            "records": self.records,
            "faulty_lines": self.faulty_lines,
            "fault_counts": {kind.value: count for kind, count in self.fault_counts.items()},
            "faults": [fault.as_dict() for fault in self.faults],
            "notes": {note.name.lower(): self.notes[note] for note in Note if self.notes[note]},
            "sources": dict(self.sources.most_common()),
            "kinds": dict(self.kinds.most_common()),
            "documents_per_record": dict(sorted(self.documents_per_record.items())),
            "unit": self.unit,
            "doc_max_length": self.doc_max_length,
            "lengths": {name: lengths.as_dict() for name, lengths in self.lengths.items()},
        }
