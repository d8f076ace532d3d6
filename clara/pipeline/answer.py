"""One question becomes an answer with citations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from clara.errors import LatentsNotReady
from clara.pipeline.asking import Answering, Asked
from clara.pipeline.reading import reading, shown_title
from clara.pipeline.record import Read
from clara.pipeline.retrieve import Retrieved, ms, retrieve
from clara.types import Mode
from clara.wording import NOTHING_FOUND, UNTRAINED

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Answered:
    """Everything the answer's rows need."""

    text: str
    mode: Mode
    passages: Sequence[Read]
    retrieved: Retrieved
    notices: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds: those of the retrieval, prefill, generation. `prefill` ends at the first
    token."""
    tokens: int = 0


def answer_question(asked: Asked, answering: Answering, *, stopped: Callable[[], bool]) -> Answered:
    """Retrieve, re-rank, read, answer. Writes nothing.

    Raises:
        QuestionTooLong: more tokens than the limit.
        LatentsNotReady: latent mode was asked for and a chosen passage has no latent.
        IndexUnavailable: neither retriever answers.
        Cancelled: `stopped` said so between two tokens.
    """
    retrieved = retrieve(asked, answering)
    if not retrieved.chosen:
        why = [] if retrieved.notice is None else [retrieved.notice]
        return Answered(NOTHING_FOUND, Mode.TEXT, [], retrieved, why, retrieved.timings)
    return _generate(asked, retrieved, answering, stopped)


def _mode(
    asked: Asked, chosen: Sequence[Read], latents: dict[UUID, Tensor], answering: Answering
) -> Mode:
    """How the passages are read.

    Raises:
        LatentsNotReady: latent mode was asked for and is not possible yet.
    """
    ids = [read.candidate.passage_id for read in chosen]
    missing = sum(id_ not in latents for id_ in ids)
    if asked.mode is Mode.AUTO:
        if missing or answering.models.checkpoint.auto_mode is Mode.TEXT:
            return Mode.TEXT
        unfaithful = answering.latents.as_text(answering.fingerprint, ids)
        return Mode.TEXT if unfaithful else Mode.LATENT
    if asked.mode is Mode.LATENT and missing:
        raise LatentsNotReady(
            f"{missing} of the {len(chosen)} chosen passages have no latent yet",
            field="mode",
            remedy="Ask again when the collection's documents are `indexed` and no run works "
            "for it, or use mode `auto`, which reads text until then.",
        )
    return asked.mode


def _generate(
    asked: Asked, retrieved: Retrieved, answering: Answering, stopped: Callable[[], bool]
) -> Answered:
    chosen, latents = retrieved.chosen, retrieved.latents
    trained = answering.models.checkpoint.trained
    mode = _mode(asked, chosen, latents, answering)
    generator = answering.models.generator
    options: dict[str, Any] = {
        "max_new_tokens": asked.max_answer_tokens,
        "should_stop": stopped,
    }
    limit = answering.models.checkpoint.config.doc_max_length

    def run() -> Any:
        if mode is Mode.LATENT:
            blocks = [latents[read.candidate.passage_id] for read in chosen]
            return generator.answer_from_latents(asked.text, blocks, **options)
        texts = [
            reading(shown_title(r.title, answering.tokenizer, max_tokens=limit), r.text)
            for r in chosen
        ]
        return generator.answer_from_text(asked.text, texts, **options)

    submitted = perf_counter()
    generated = answering.engine.submit(run, urgent=True).result()
    waited = perf_counter() - submitted - generated.total_s
    return Answered(
        text=generated.text,
        mode=mode,
        passages=chosen,
        retrieved=retrieved,
        notices=[UNTRAINED] if mode is Mode.LATENT and not trained else [],
        timings=retrieved.timings
        | {
            "prefill": ms(max(waited, 0.0) + generated.first_token_s),
            "generation": ms(generated.total_s - generated.first_token_s),
        },
        tokens=len(generated.token_ids),
    )
