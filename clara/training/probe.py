"""Does it learn to compress, or only to answer in style?

Answers are scored once with the right latents and once with those of another record. Recipes that
learn style alone score alike on both within minutes; the distance is what the compressor does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import torch

from clara.errors import InvalidTraining
from clara.model.compressor import groups
from clara.training.records import CompressionRecord, Record
from clara.training.stages import Objective
from clara.training.together import Together
from clara.training.trainee import Trainee


class Probe:
    """Dev scores of the model as it is, without merging or saving anything.

    Args:
        trainee: to score.
        objective: of its stage.
        records: the dev records.
        seed: of the training.
        together: processes that share the work, where there are several.
    Raises:
        InvalidTraining: no record leaves anything to score.
    """

    def __init__(
        self,
        trainee: Trainee,
        objective: Objective,
        records: Sequence[Record],
        *,
        seed: int,
        together: Together | None = None,
    ) -> None:
        self._trainee, self._objective, self._seed = trainee, objective, seed
        self._together = together or Together()
        self._right = self._examples(records)
        self._wrong = self._examples(_swapped(records))
        if not self._right:
            raise InvalidTraining(
                f"none of the {len(records)} dev records leaves anything to score",
                field="dev",
                remedy="See that answers fit behind their prompts in max_len tokens",
            )

    def scores(self) -> Mapping[str, float]:
        """Mean losses by name; `score` is the answer's, in nats per token, lower is better.

        `wrong` is the answer's from another record's documents. Where the answer carries no weight,
        `score` is the ranking's loss and there is no `wrong`.
        """
        right = self._of(self._right)
        if not self._objective.weights["answer"]:
            return {**right, "score": right["retrieval"]}
        return {**right, "score": right["answer"], "wrong": self._of(self._wrong)["answer"]}

    def _of(self, examples: Sequence[Any]) -> dict[str, float]:
        """Mean losses of the model in evaluation."""
        self._trainee.eval()
        try:
            with torch.no_grad():
                return self._mean(examples)
        finally:
            self._trainee.train()

    def _examples(self, records: Sequence[Record]) -> list[Any]:
        found = (
            self._objective.example(record, Random(f"{self._seed}:{record.id}"))  # noqa: S311
            for record in records
        )
        return [example for example in found if example is not None]

    def _mean(self, examples: Sequence[Any]) -> dict[str, float]:
        names = list(self._objective.weights)
        sums, counts = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        examples = self._together.mine(examples)
        order = sorted(range(len(examples)), key=lambda i: examples[i].places)
        for group in groups(order, [e.places for e in examples], self._trainee.most_tokens):
            batch = [examples[i] for i in group]
            found = self._objective(self._trainee, batch)
            for name in names:
                sums[name] += float(found[name])
                counts[name] += sum(example.counts.get(name, 0) for example in batch)
        sums, counts = self._together.sums(sums), self._together.sums(counts)
        return {name: sums[name] / max(counts[name], 1) for name in names}


def _swapped(records: Sequence[Record]) -> list[Record]:
    """Every record with the documents of the next one."""
    following = [*records[1:], *records[:1]]
    found: list[Record] = []
    for record, other in zip(records, following, strict=True):
        if isinstance(record, CompressionRecord):
            assert isinstance(other, CompressionRecord)  # noqa: S101 - records of one stage
            found.append(replace(record, document=other.document))
        else:
            assert not isinstance(other, CompressionRecord)  # noqa: S101 - records of one stage
            found.append(replace(record, documents=other.documents, positives=()))
    return found
