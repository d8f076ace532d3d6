"""One question becomes an answer with citations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from clara.db.connect import OpenDb
from clara.db.tables import Answer, Citation, Document, Passage
from clara.errors import IndexUnavailable, LatentsNotReady, QuestionTooLong
from clara.evidence import find_evidence
from clara.pipeline.reading import Tokenizer, reading, shown_title
from clara.retrieval import hybrid
from clara.retrieval.ports import DenseIndex, LatentStore, LexicalIndex
from clara.types import Candidate, Mode
from clara.wording import NOTHING_FOUND, UNTRAINED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Vector = NDArray[np.float32]

    from clara.model.models import Models
    from clara.serving.encoding import EncoderOnEngine
    from clara.serving.engine import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How much is searched and read."""

    bm25_top_k: int
    dense_top_k: int
    max_candidates: int
    min_score: float
    """Latent cosine under which a passage is not read; only with a trained checkpoint."""
    max_question_tokens: int


@dataclass(frozen=True)
class Answering:
    """What answering needs."""

    open_db: OpenDb
    lexical: LexicalIndex
    dense: DenseIndex
    latents: LatentStore
    encoder: EncoderOnEngine
    tokenizer: Tokenizer
    models: Models
    engine: Engine
    pool: Executor
    """Where the two retrievers run at once."""
    checkpoint_id: UUID
    limits: Limits


@dataclass(frozen=True)
class Asked:
    """A question, detached from its row."""

    id: UUID
    collection_id: UUID
    text: str
    mode: Mode
    top_k: int
    max_answer_tokens: int


@dataclass(frozen=True)
class Read:
    """A passage as it stands in the record, with its rank and scores."""

    candidate: Candidate
    document_id: UUID
    title: str
    start: int
    end: int
    text: str
    score: float = 0.0


@dataclass
class Answered:
    """Everything the answer's rows need."""

    text: str
    mode: Mode
    passages: Sequence[Read]
    reranked_by: str
    notices: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds: retrieval, rerank, prefill, generation. `prefill` ends at the first token."""
    tokens: int = 0


def answer_question(asked: Asked, answering: Answering, *, stopped: Callable[[], bool]) -> Answered:
    """Retrieve, re-rank, read, answer. Writes nothing.

    Raises:
        QuestionTooLong: more tokens than the limit.
        LatentsNotReady: latent mode was asked for and a chosen passage has no latent.
        IndexUnavailable: neither retriever answers.
        Cancelled: `stopped` said so between two tokens.
    """
    _check(asked, answering)
    started = perf_counter()
    vector = answering.encoder.encode([asked.text])[0]
    candidates, degraded = _retrieve(asked, vector, answering)
    found = _read(candidates, answering)
    retrieved = perf_counter()
    ranked, latents, reranked_by = _rerank(asked, vector, found, answering)
    reranked = perf_counter()
    timings = {"retrieval": _ms(retrieved - started), "rerank": _ms(reranked - retrieved)}
    if not ranked:
        return Answered(NOTHING_FOUND, Mode.TEXT, [], reranked_by, [], degraded, timings)
    answered = _generate(asked, ranked, latents, answering, stopped)
    answered.reranked_by = reranked_by
    answered.degraded = degraded
    answered.timings = timings | answered.timings
    return answered


def write_answer(db: Session, asked: Asked, answered: Answered, checkpoint_id: UUID) -> None:
    """Insert the answer and its citations.

    A passage whose document was deleted meanwhile is not cited: its words are gone for good.
    """
    db.add(
        Answer(
            question_id=asked.id,
            text=answered.text.replace("\x00", ""),
            mode=answered.mode,
            checkpoint_id=checkpoint_id,
            reranked_by=answered.reranked_by,
            notices=answered.notices,
            degraded=answered.degraded,
            timings=answered.timings,
        )
    )
    db.flush()
    documents = [read.document_id for read in answered.passages]
    passages = [read.candidate.passage_id for read in answered.passages]
    # share locks: neither can be deleted between this look and the commit
    alive = set(db.scalars(_share(select(Document.id).where(Document.id.in_(documents)))))
    kept = set(db.scalars(_share(select(Passage.id).where(Passage.id.in_(passages)))))
    rows = [
        _citation(rank, read, asked, answered, keep_passage=read.candidate.passage_id in kept)
        for rank, read in enumerate(answered.passages, start=1)
        if read.document_id in alive
    ]
    if rows:
        db.execute(insert(Citation), rows)


def _share(statement: Any) -> Any:
    return statement.with_for_update(read=True, key_share=True)


def _check(asked: Asked, answering: Answering) -> None:
    tokens = answering.tokenizer.count(asked.text)
    if tokens > answering.limits.max_question_tokens:
        raise QuestionTooLong(
            f"the question has {tokens} tokens, the limit is "
            f"{answering.limits.max_question_tokens}",
            field="question",
            limit=answering.limits.max_question_tokens,
            remedy="Ask a shorter question, or raise CLARA_MAX_QUESTION_TOKENS.",
        )


def _retrieve(
    asked: Asked, vector: Vector, answering: Answering
) -> tuple[list[Candidate], list[str]]:
    return hybrid.search(
        answering.lexical,
        answering.dense,
        asked.collection_id,
        asked.text,
        vector,
        lexical_limit=answering.limits.bm25_top_k,
        dense_limit=answering.limits.dense_top_k,
        limit=answering.limits.max_candidates,
        pool=answering.pool,
    )


def _read(candidates: Sequence[Candidate], answering: Answering) -> list[Read]:
    """Look the candidates up in the record; what the record does not know is left out."""
    words = func.substr(Document.text, Passage.start + 1, Passage.end - Passage.start)
    with answering.open_db() as db:
        rows = db.execute(
            select(Passage.id, Document.id, Document.title, Passage.start, Passage.end, words)
            .join(Document, Document.id == Passage.document_id)
            .where(Passage.id.in_([c.passage_id for c in candidates]))
        )
        found = {row[0]: row[1:] for row in rows}
    return [Read(c, *found[c.passage_id]) for c in candidates if c.passage_id in found]


def _rerank(
    asked: Asked, vector: Vector, found: Sequence[Read], answering: Answering
) -> tuple[list[Read], dict[UUID, Tensor], str]:
    """Order by cosine of latents where they mean something, else by both retrievers' ranks."""
    ids = [read.candidate.passage_id for read in found]
    checkpoint = answering.models.checkpoint
    wants_latents = asked.mode is not Mode.TEXT or checkpoint.trained
    latents = answering.latents.get(answering.models.fingerprint, ids) if wants_latents else {}
    if checkpoint.trained and found and len(latents) == len(found):
        scores = _latent_scores(asked.text, [latents[id_] for id_ in ids], answering)
        ranked = _best(found, scores, asked.top_k)
        kept = [read for read in ranked if read.score >= answering.limits.min_score]
        return kept, latents, "latent"
    fused = hybrid.fuse([read.candidate for read in found], _cosines(asked, vector, ids, answering))
    return _best(found, [fused[id_] for id_ in ids], asked.top_k), latents, "fusion"


def _cosines(
    asked: Asked, vector: Vector, ids: Sequence[UUID], answering: Answering
) -> dict[UUID, float]:
    """Exact cosines of the sentence encoder; none where the dense index does not answer."""
    try:
        return answering.dense.scores(asked.collection_id, vector, ids)
    except IndexUnavailable:
        return {}


def _latent_scores(question: str, blocks: Sequence[Tensor], answering: Answering) -> list[float]:
    def run() -> list[float]:
        query = answering.models.reasoner.encode([question])[0]
        scores: list[float] = answering.models.score(query, blocks).tolist()
        return scores

    result: list[float] = answering.engine.submit(run, urgent=True).result()
    return result


def _best(found: Sequence[Read], scores: Sequence[float], top_k: int) -> list[Read]:
    scored = [
        Read(r.candidate, r.document_id, r.title, r.start, r.end, r.text, score)
        for r, score in zip(found, scores, strict=True)
    ]
    return sorted(scored, key=lambda read: -read.score)[:top_k]


def _mode(asked: Asked, ranked: Sequence[Read], latents: dict[UUID, Tensor], trained: bool) -> Mode:
    """How the passages are read.

    Raises:
        LatentsNotReady: latent mode was asked for and is not possible yet.
    """
    missing = sum(read.candidate.passage_id not in latents for read in ranked)
    if asked.mode is Mode.AUTO:
        return Mode.LATENT if trained and not missing else Mode.TEXT
    if asked.mode is Mode.LATENT and missing:
        raise LatentsNotReady(
            f"{missing} of the {len(ranked)} chosen passages have no latent yet",
            field="mode",
            remedy="Ask again when the collection's documents are `indexed`, or use mode `auto`, "
            "which reads text until then.",
        )
    return asked.mode


def _generate(
    asked: Asked,
    ranked: Sequence[Read],
    latents: dict[UUID, Tensor],
    answering: Answering,
    stopped: Callable[[], bool],
) -> Answered:
    trained = answering.models.checkpoint.trained
    mode = _mode(asked, ranked, latents, trained)
    generator = answering.models.generator
    options: dict[str, Any] = {
        "max_new_tokens": asked.max_answer_tokens,
        "should_stop": stopped,
    }
    limit = answering.models.checkpoint.config.doc_max_length

    def run() -> Any:
        if mode is Mode.LATENT:
            blocks = [latents[read.candidate.passage_id] for read in ranked]
            return generator.answer_from_latents(asked.text, blocks, **options)
        texts = [
            reading(shown_title(r.title, answering.tokenizer, max_tokens=limit), r.text)
            for r in ranked
        ]
        return generator.answer_from_text(asked.text, texts, **options)

    submitted = perf_counter()
    generated = answering.engine.submit(run, urgent=True).result()
    waited = perf_counter() - submitted - generated.total_s
    return Answered(
        text=generated.text,
        mode=mode,
        passages=ranked,
        reranked_by="",
        notices=[UNTRAINED] if mode is Mode.LATENT and not trained else [],
        timings={
            "prefill": _ms(max(waited, 0.0) + generated.first_token_s),
            "generation": _ms(generated.total_s - generated.first_token_s),
        },
        tokens=len(generated.token_ids),
    )


def _citation(
    rank: int, read: Read, asked: Asked, answered: Answered, *, keep_passage: bool
) -> dict[str, Any]:
    evidence = find_evidence(read.text, answered.text, asked.text)
    return {
        "question_id": asked.id,
        "rank": rank,
        "document_id": read.document_id,
        "passage_id": read.candidate.passage_id if keep_passage else None,
        "start": read.start,
        "end": read.end,
        "text": read.text,
        "evidence_start": read.start + evidence.start if evidence else None,
        "evidence_end": read.start + evidence.end if evidence else None,
        "score": read.score,
        "lexical": read.candidate.lexical,
        "lexical_rank": read.candidate.lexical_rank,
        "dense": read.candidate.dense,
        "dense_rank": read.candidate.dense_rank,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
