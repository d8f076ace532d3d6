"""The sample questions, and how many of them were answered right."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from clara.evaluation.metrics import best_score
from clara.wording import is_refusal


@dataclass(frozen=True)
class Question:
    """One question of the samples."""

    text: str
    answers: tuple[str, ...]
    """Any of them is right; none where the catalogue does not answer the question."""


@dataclass
class Tally:
    """Questions asked in the default mode, and those answered as they should be."""

    answerable: int = 0
    right: int = 0
    unanswerable: int = 0
    refused: int = 0

    def add(self, question: Question, answer: str) -> bool:
        """Count one answer. Returns whether it holds a gold answer, or refuses where it should."""
        if not question.answers:
            found = is_refusal(answer)
            self.unanswerable += 1
            self.refused += found
            return found
        found = best_score(answer, question.answers).cover_em
        self.answerable += 1
        self.right += found
        return found

    def as_dict(self) -> dict[str, int]:
        """As the report keeps it."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.right} of {self.answerable} questions answered right, "
            f"{self.refused} of {self.unanswerable} unanswerable ones refused"
        )


def read(path: Path) -> list[Question]:
    """All questions of a file in the form of `samples/questions.jsonl`."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Question(row["question"], tuple(row["answers"])) for row in rows]
