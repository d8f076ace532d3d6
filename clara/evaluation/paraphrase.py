"""Quality of the first training stage: what a model says again from a passage's latent alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from torch import Tensor

from clara.evaluation import metrics, rouge
from clara.evaluation.batches import batches, budget
from clara.evaluation.datasets import Restatement
from clara.evaluation.fitting import fit
from clara.evaluation.progress import Progress, untold
from clara.evaluation.results import Numbers
from clara.model.models import Models

INSTRUCTION = 0
"""Of the training instructions; always the same one, so that results compare."""

GROUP = 128
"""Passages on their way at a time."""


@dataclass(frozen=True, slots=True)
class Said:
    """One passage, said again."""

    restatement: Restatement
    text: str

    def numbers(self) -> dict[str, float | None]:
        """Scores against the restatement and against the passage itself; None: not defined."""
        wanted = {"restatement": self.restatement.text, "source": self.restatement.passage}
        return {
            f"{against}_{name}": value
            for against, text in wanted.items()
            for name, value in _scores(self.text, text).items()
        }

    def as_dict(self) -> dict[str, Any]:
        """For a file of rows."""
        given = self.restatement
        texts = {"passage": given.passage, "restatement": given.text, "said": self.text}
        return {"id": given.id, **texts, **self.numbers()}


@dataclass(frozen=True)
class Paraphrased:
    """One file, said again."""

    rows: tuple[Said, ...]
    cut: int
    """Different passages whose end was not read."""
    seconds: float

    def numbers(self) -> Numbers:
        """Means with 95 % bootstrap intervals, over the rows where a score is defined.

        `restatement_...` is against the given restatement, `source_...` against the passage:
        ROUGE F1, and the share of numbers and names that were kept.
        """
        rows = [row.numbers() for row in self.rows]
        columns = {
            name: [value for row in rows if (value := row[name]) is not None]
            for name in (rows[0] if rows else {})
        }
        spread = {name: metrics.intervals({name: column})[name] for name, column in columns.items()}
        return {
            "n": len(rows),
            **{name: metrics.mean(column) for name, column in columns.items()},
            "avg_words": metrics.mean(metrics.words(row.text) for row in self.rows),
            "cut": self.cut,
            "seconds": round(self.seconds, 3),
            "intervals": {name: list(ends) for name, ends in spread.items()},
        }


def paraphrase(
    models: Models,
    restatements: Sequence[Restatement],
    *,
    max_new_tokens: int | None = None,
    batch_tokens: int | None = None,
    progress: Progress = untold,
) -> Paraphrased:
    """Let the generator restate every passage from its latent, greedily.

    Args:
        models: one checkpoint.
        restatements: passages, each with the restatement to compare with.
        max_new_tokens: None: as many as the longest passage has.
        batch_tokens: token places of one batch; None: by the device.
        progress: told after every batch.
    """
    start = perf_counter()
    fitted = fit(models.tokens, (given.passage for given in restatements))
    most = max_new_tokens or models.tokens.doc_max_length
    places = budget(models.device, batch_tokens)
    said: list[Said] = []
    for first in range(0, len(restatements), GROUP):
        group = restatements[first : first + GROUP]
        prompts = _prompts(models, [fitted[given.passage] for given in group])
        found: dict[int, str] = {}
        for batch in batches([len(prompt) + most for prompt in prompts], places):
            ids = models.generator.generate([prompts[at] for at in batch], max_new_tokens=most)
            found.update(zip(batch, map(models.generator.text_of, ids), strict=True))
            progress("answers", len(said) + len(found), len(restatements))
        said += [Said(given, found[at]) for at, given in enumerate(group)]
    cut = sum(read != text for text, read in fitted.items())
    return Paraphrased(tuple(said), cut, perf_counter() - start)


def _prompts(models: Models, passages: Sequence[str]) -> list[Tensor]:
    """Input embeddings (tokens, width) per passage."""
    tokens, prompts = models.tokens, []
    for latent in models.compressor.compress(passages):
        text = tokens.prompts.paraphrase([len(latent)], INSTRUCTION)
        prompts.append(models.generator.place(tokens.encode([text])[0], [latent]))
    return prompts


def _scores(found: str, wanted: str) -> Mapping[str, float | None]:
    return {
        "rouge1": rouge.rouge_n(found, wanted, 1),
        "rouge2": rouge.rouge_n(found, wanted, 2),
        "rougeL": rouge.rouge_l(found, wanted),
        "numbers_kept": rouge.numbers_kept(found, wanted),
        "names_kept": rouge.names_kept(found, wanted),
    }
