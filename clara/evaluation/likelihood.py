"""How likely the gold answer is after four prompts: what latents carry, in minutes of measuring.

The share of the way from no document to the text that the right latents cover says how much they
carry; latents of another record that do as well say that only the style of answers was learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from clara.errors import InvalidDataset, TextTooLong
from clara.evaluation.batches import batches, budget
from clara.evaluation.datasets import Record
from clara.evaluation.evaluate import reader
from clara.evaluation.fitting import fit
from clara.evaluation.latents import PassageLatents
from clara.evaluation.options import Reader, Reading
from clara.evaluation.progress import Progress, untold
from clara.model.backbone import embedding_of, head_of
from clara.model.models import Models
from clara.model.tokens import Tokens

READINGS = ("none", "text", "right", "wrong")
"""No document; the gold passages as text; their latents; latents of another record's."""

GROUP = 128
"""Records whose prompts are in memory together."""


@dataclass(frozen=True)
class _Sequence:
    """A prompt and the answer it is asked to continue with."""

    embeds: Tensor
    """(prompt + answer, width)."""
    answer: Tensor
    """Ids, (answer,)."""


def likelihoods(
    models: Models,
    records: Sequence[Record],
    *,
    text_reader: Reader = Reader.BASE,
    batch_tokens: int | None = None,
    progress: Progress = untold,
) -> dict[str, float]:
    """Mean negative log-likelihood per token of the first gold answer, in nats, by reading.

    All readings share question, prompt and answer; latents are read by the generator. Gold
    passages are cut to the checkpoint's length, in text too. The end of the answer is not counted.

    Args:
        models: one checkpoint.
        records: those without a gold passage are left out.
        text_reader: who reads `none` and `text`.
        batch_tokens: token places of one batch; None: by the device.
        progress: told after every batch.
    Returns:
        `none`, `text`, `right` and `wrong`: sums over all answer tokens, divided by their number.
    Raises:
        InvalidDataset: fewer than two records with different gold passages.
    """
    with torch.inference_mode():
        return _Measure(models, records, text_reader, batch_tokens, progress).run()


def gap_closed(found: Mapping[str, float]) -> float | None:
    """Share of the way from `none` to `text` that `right` covers; None where text is no help."""
    gap = found["none"] - found["text"]
    return (found["none"] - found["right"]) / gap if gap > 0 else None


def answer_ids(tokens: Tokens, question: str, answer: str) -> list[int]:
    """Ids of an answer as it stands behind a prompt, without the template's end of turn."""
    prompts = tokens.prompts
    asked, whole = tokens.encode(
        [prompts.from_text(question, []), prompts.from_text(question, [], answer)]
    )
    ids = whole[len(asked) :]
    end = next((at for at, token in enumerate(ids) if token in tokens.control), len(ids))
    return ids[:end]


class _Measure:
    """Sums of four readings over all records, group by group."""

    def __init__(
        self,
        models: Models,
        records: Sequence[Record],
        text_reader: Reader,
        batch_tokens: int | None,
        progress: Progress,
    ) -> None:
        self._models, self._text_reader = models, text_reader
        self._places = budget(models.device, batch_tokens)
        self._records = [record for record in records if record.pos_index]
        self._others = others([record.gold_docs for record in self._records])
        self._fitted = fit(models.tokens, (doc for r in self._records for doc in r.gold_docs))
        self._progress = progress
        self._done = 0
        uses = [self._uses(at) for at in range(len(self._records))]
        self._latents = PassageLatents(models.compressor, uses, progress)

    def run(self) -> dict[str, float]:
        """Means over all answer tokens, by reading."""
        sums, counted = dict.fromkeys(READINGS, 0.0), 0
        for start in range(0, len(self._records), GROUP):
            group = range(start, min(start + GROUP, len(self._records)))
            self._latents.need(text for at in group for text in self._uses(at))
            answers = [self._answer(at) for at in group]
            counted += sum(map(len, answers))
            for reading in READINGS:
                pairs = zip(group, answers, strict=True)
                sequences = [self._sequence(reading, at, answer) for at, answer in pairs]
                sums[reading] += self._sum(self._model(reading), sequences)
            for at in group:
                self._latents.release(self._uses(at))
        return {reading: total / max(counted, 1) for reading, total in sums.items()}

    def _gold(self, at: int) -> list[str]:
        return [self._fitted[doc] for doc in self._records[at].gold_docs]

    def _uses(self, at: int) -> list[str]:
        return [*self._gold(at), *self._gold(self._others[at])]

    def _answer(self, at: int) -> Tensor:
        record = self._records[at]
        ids = answer_ids(self._models.tokens, record.question, record.gold_answer)
        return torch.tensor(ids, dtype=torch.long, device=self._models.device)

    def _model(self, reading: str) -> PreTrainedModel:
        mode = Reading.TEXT if reading in ("none", "text") else Reading.LATENT
        return reader(self._models, mode, self._text_reader)

    def _sequence(self, reading: str, at: int, answer: Tensor) -> _Sequence:
        generator, question = self._models.generator, self._records[at].question
        if reading == "none":
            prompt = generator.prompt_from_text(question, [])
        elif reading == "text":
            prompt = generator.prompt_from_text(question, self._gold(at))
        else:
            source = at if reading == "right" else self._others[at]
            latents = self._latents.of(self._gold(source))
            prompt = generator.prompt_from_latents(question, latents)
        embeds = torch.cat([prompt, embedding_of(generator.model)(answer)])
        if len(embeds) > generator.context:
            raise TextTooLong(
                f"prompt and answer have {len(embeds)} tokens; the base reads {generator.context}",
                field=self._records[at].id,
                limit=generator.context,
                remedy="Leave this record out",
            )
        return _Sequence(embeds, answer)

    def _sum(self, model: PreTrainedModel, sequences: Sequence[_Sequence]) -> float:
        total = 0.0
        for group in batches([len(found.embeds) for found in sequences], self._places):
            total += negative_log_likelihood(model, [sequences[position] for position in group])
            self._done += len(group)
            self._progress("answers", self._done, len(READINGS) * len(self._records))
        return total


def negative_log_likelihood(model: PreTrainedModel, batch: Sequence[_Sequence]) -> float:
    """Sum over all answer tokens, in nats; one pass, the head on the answers' positions alone."""
    longest = max(len(found.embeds) for found in batch)
    # filled on the right, where a causal model cannot look: no mask needed
    filled = [
        torch.nn.functional.pad(found.embeds, (0, 0, 0, longest - len(found.embeds)))
        for found in batch
    ]
    states = model.base_model(inputs_embeds=torch.stack(filled), use_cache=False).last_hidden_state
    before = torch.cat(
        [
            states[i, len(found.embeds) - len(found.answer) - 1 : len(found.embeds) - 1]
            for i, found in enumerate(batch)
        ]
    )
    logits = head_of(model)(before).float()
    wanted = torch.cat([found.answer for found in batch])
    return float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))


def others(golds: Sequence[Sequence[str]]) -> list[int]:
    """For each record the next one, around the end, that has none of its gold passages.

    Raises:
        InvalidDataset: a record has no such other.
    """
    sets = [frozenset(gold) for gold in golds]
    return [_next_without(sets, at) for at in range(len(sets))]


def _next_without(sets: Sequence[frozenset[str]], at: int) -> int:
    for step in range(1, len(sets)):
        other = (at + step) % len(sets)
        if not sets[at] & sets[other]:
            return other
    raise InvalidDataset(
        "the likelihood after wrong latents needs two records with different gold passages",
        field="pos_index",
        remedy="Give more records, with pos_index",
    )
