"""What an evaluation found: a row per question, and numbers per file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clara.evaluation import metrics
from clara.evaluation.datasets import Record
from clara.evaluation.options import Options, Ranker
from clara.evaluation.ranking import Ranking
from clara.wording import is_refusal

Numbers = dict[str, Any]
"""The numbers of one file, as they stand in the JSON result."""


@dataclass(frozen=True, slots=True)
class Row:
    """One question and what became of it."""

    record: Record
    ranking: Ranking
    prediction: str
    answer_tokens: int
    """Generated, with the end token."""

    def numbers(self) -> dict[str, float]:
        """Every score of this question; means over rows are the file's numbers."""
        return self._of_answer() | self._of_ranking()

    def _of_answer(self) -> dict[str, float]:
        golds = self.record.golden_answers
        first = metrics.score_answer(self.prediction, golds[0])
        best = metrics.best_score(self.prediction, golds)
        return {
            "em": float(first.em),
            "cover_em": float(first.cover_em),
            "f1": first.f1,
            "em_any": float(best.em),
            "cover_em_any": float(best.cover_em),
            "f1_any": best.f1,
            "refused": float(is_refusal(self.prediction)),
            "avg_answer_words": float(metrics.words(self.prediction)),
        }

    def _of_ranking(self) -> dict[str, float]:
        gold, order = self.record.pos_index, self.ranking.order
        orders = {"": order} | {f"{name}_": self.ranking.by(name) for name in self.ranking.scores}
        recalls = {
            f"{prefix}recall@{k}": metrics.recall(found, gold, k)
            for prefix, found in orders.items()
            for k in metrics.CUTS
        }
        precisions = {f"precision@{k}": metrics.precision(order, gold, k) for k in metrics.CUTS}
        return recalls | precisions

    def as_dict(self) -> dict[str, Any]:
        """For a file of rows: the record without its passages, and everything found."""
        scores = self.ranking.scores.items()
        return {
            "id": self.record.id,
            "question": self.record.question,
            "golden_answers": list(self.record.golden_answers),
            "prediction": self.prediction,
            "pos_index": list(self.record.pos_index),
            "selected": list(self.ranking.selected),
            "ranking": list(self.ranking.order),
            "scores": {str(name): [round(value, 6) for value in found] for name, found in scores},
            "answer_tokens": self.answer_tokens,
            **self.numbers(),
        }


@dataclass(frozen=True)
class Evaluation:
    """One file, answered."""

    rows: tuple[Row, ...]
    options: Options
    ranker: Ranker
    """The one in effect."""
    cut: int
    """Different passages whose end was not read, being over the checkpoint's length."""
    cut_questions: int
    """Questions whose end the query reasoner did not read."""
    seconds: float

    def numbers(self) -> Numbers:
        """Means over all questions, as fractions, with 95 % bootstrap intervals.

        `em`, `cover_em` and `f1` are the original's, against the first gold answer; `..._any` the
        best over all of them. `recall@k` and `precision@k` are those of the order the passages are
        read in, `bm25_...` and `latent_...` those of each ranker, always over all candidates;
        questions without a gold passage count as 0, as in the original.
        """
        rows = [row.numbers() for row in self.rows]
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
        spread = metrics.intervals(columns, seed=self.options.seed)
        return {
            "n": len(rows),
            **{name: metrics.mean(values) for name, values in columns.items()},
            "cut": self.cut,
            "cut_questions": self.cut_questions,
            "seconds": round(self.seconds, 3),
            "intervals": {name: list(ends) for name, ends in spread.items()},
            "options": self.settings(),
        }

    def settings(self) -> Mapping[str, str | int]:
        """What was measured, to stand beside the numbers."""
        return {
            "mode": str(self.options.mode),
            "setting": str(self.options.setting),
            "ranker": str(self.ranker),
            "reader": str(self.options.reader),
            "top_k": self.options.top_k,
            "max_new_tokens": self.options.max_new_tokens,
            "seed": self.options.seed,
        }
