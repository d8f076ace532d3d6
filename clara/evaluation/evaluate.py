"""Answer a file of questions with a checkpoint and score answers and rankings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter

import torch
from torch import Tensor
from transformers import PreTrainedModel

from clara.errors import TextTooLong
from clara.evaluation.batches import batches, budget
from clara.evaluation.bm25 import Bm25
from clara.evaluation.datasets import Record
from clara.evaluation.fitting import fit
from clara.evaluation.latents import PassageLatents
from clara.evaluation.options import Options, Ranker, Reader, Reading
from clara.evaluation.progress import Progress, untold
from clara.evaluation.ranking import Ranking, rank
from clara.evaluation.results import Evaluation, Row
from clara.model.decoding import Lowered
from clara.model.models import Models

GROUP = 128
"""Records on their way at a time: their prompts and latents are in memory together."""


def evaluate(
    models: Models,
    records: Sequence[Record],
    options: Options | None = None,
    *,
    statistics: Bm25 | None = None,
    progress: Progress = untold,
) -> Evaluation:
    """Rank every record's candidates, let the model answer, score both.

    Passages are read up to the checkpoint's length in every mode, so that modes compare.

    Args:
        models: one checkpoint; used in this thread.
        records: the questions.
        options: mode, setting, ranker and sizes; the defaults where None.
        statistics: how rare words are; of the records' own passages where None. Give those of the
            whole file where `records` are only some of it.
        progress: told after every batch; an exception it raises ends the evaluation.
    Raises:
        TextTooLong: a prompt leaves no room in the base's context.
    """
    chosen, start = options or Options(), perf_counter()
    passages = fit(models.tokens, (doc for record in records for doc in record.docs))
    questions = fit(models.tokens, (record.question for record in records))
    fitted = [replace(record, docs=_read(record.docs, passages)) for record in records]
    counted = statistics or Bm25.of(doc for record in fitted for doc in record.docs)
    run = _Run(models, chosen, counted, questions, fitted, progress)
    with torch.inference_mode():
        rows = tuple(row for group in _groups(fitted) for row in run.rows(group))
    return Evaluation(
        rows=rows,
        options=chosen,
        ranker=run.ranker,
        cut=_changed(passages),
        cut_questions=_changed(questions) if run.latents else 0,
        seconds=perf_counter() - start,
    )


class _Run:
    """The steps of one evaluation, group of records by group."""

    def __init__(
        self,
        models: Models,
        options: Options,
        bm25: Bm25,
        questions: Mapping[str, str],
        records: Sequence[Record],
        progress: Progress,
    ) -> None:
        self._models, self._options = models, options
        self._bm25, self._questions = bm25, questions
        self._progress = progress
        self._answered, self._total = 0, len(records)
        self.ranker = options.ranker_for(trained=models.checkpoint.trained)
        self.latents = self._latents(records)

    def _latents(self, records: Sequence[Record]) -> PassageLatents | None:
        """A store of latents where any are needed: all candidates', so that rankers compare."""
        if self._options.mode is not Reading.LATENT and self.ranker is not Ranker.LATENT:
            return None
        uses = [record.docs for record in records]
        return PassageLatents(self._models.compressor, uses, self._progress)

    def rows(self, records: Sequence[Record]) -> Iterator[Row]:
        """Rank, choose and answer some records."""
        rankings = self._rankings(records)
        prompts = [self._prompt(*pair) for pair in zip(records, rankings, strict=True)]
        answers = self._answers(prompts)
        for record, ranking, ids in zip(records, rankings, answers, strict=True):
            yield Row(record, ranking, self._models.generator.text_of(ids), len(ids))
            if self.latents is not None:
                self.latents.release(record.docs)

    def _rankings(self, records: Sequence[Record]) -> list[Ranking]:
        lexical = [self._bm25.scores(record.question, record.docs) for record in records]
        scores: list[dict[Ranker, Sequence[float]]] = [{Ranker.BM25: found} for found in lexical]
        if self.latents is not None:
            self.latents.need(doc for record in records for doc in record.docs)
            for found, cosines in zip(scores, self._cosines(self.latents, records), strict=True):
                found[Ranker.LATENT] = cosines
        return [
            rank(record, found, self.ranker, self._options)
            for record, found in zip(records, scores, strict=True)
        ]

    def _cosines(
        self, latents: PassageLatents, records: Sequence[Record]
    ) -> Iterator[Sequence[float]]:
        """Latent score per candidate, record by record."""
        asked = [self._questions[record.question] for record in records]
        for record, query in zip(records, self._models.reasoner.encode(asked), strict=True):
            found = latents.of(record.docs)
            yield self._models.score(query, found).tolist()

    def _prompt(self, record: Record, ranking: Ranking) -> Tensor:
        """Input embeddings (tokens, width), short enough for an answer."""
        prompt = self._read(record, ranking)
        context = self._models.generator.context
        if len(prompt) >= context:
            raise TextTooLong(
                f"the prompt of record {record.id} has {len(prompt)} tokens; "
                f"the base reads {context}",
                field=record.id,
                limit=context,
                remedy="Read fewer passages, or leave this record out",
            )
        return prompt

    def _read(self, record: Record, ranking: Ranking) -> Tensor:
        generator = self._models.generator
        passages = [record.docs[index] for index in ranking.selected]
        if self._options.mode is Reading.NONE or not passages:
            return generator.prompt_from_text(record.question, [])
        if self._options.mode is Reading.TEXT or self.latents is None:
            return generator.prompt_from_text(record.question, passages)
        return generator.prompt_from_latents(record.question, self.latents.of(passages))

    def _answers(self, prompts: Sequence[Tensor]) -> list[list[int]]:
        """Greedy ids for every prompt, in batches of similar length."""
        options, found = self._options, dict[int, list[int]]()
        lengths = [len(prompt) + options.max_new_tokens for prompt in prompts]
        for group in batches(lengths, budget(self._models.device, options.batch_tokens)):
            ids = self._models.generator.generate(
                [prompts[position] for position in group],
                max_new_tokens=options.max_new_tokens,
                model=reader(self._models, options.mode, options.reader),
                lowered=lowered(self._models, options.mode, options.reader),
            )
            found.update(zip(group, ids, strict=True))
            self._answered += len(group)
            self._progress("answers", self._answered, self._total)
        return [found[position] for position in range(len(prompts))]


def reader(models: Models, mode: Reading, chosen: Reader) -> PreTrainedModel:
    """The weights that answer: the generator's for latents, the chosen ones for plain text."""
    generator = models.generator
    plain = mode is not Reading.LATENT and chosen is Reader.BASE
    return generator.text_model if plain else generator.model


def lowered(models: Models, mode: Reading, chosen: Reader) -> Lowered | None:
    """What it takes for `reader` to refuse; the base knows no refusals."""
    if mode is Reading.LATENT:
        return models.generator.hesitant.from_latents
    asked = mode is Reading.TEXT and chosen is Reader.GENERATOR
    return models.generator.hesitant.from_text if asked else None


def _read(docs: Sequence[str], fitted: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(fitted[doc] for doc in docs)


def _changed(fitted: Mapping[str, str]) -> int:
    return sum(read != text for text, read in fitted.items())


def _groups(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), GROUP):
        yield records[start : start + GROUP]
