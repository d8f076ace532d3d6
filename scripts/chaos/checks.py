"""Afterwards: what was accepted against what is there: record, indexes, answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clara import generations
from clara.db.connect import OpenDb
from clara.db.tables import (
    ACTIVE,
    Answer,
    Collection,
    Document,
    DocumentStatus,
    Latent,
    Passage,
    Question,
    Run,
    RunStatus,
)
from clara.retrieval.dense import dense_index
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.lexical import lexical_index
from clara.retrieval.ports import DenseIndex, LexicalIndex
from clara.settings import Settings

from .load import COLLECTION, Told
from .world import World

QUIET_S = 300.0
"""Seconds until all work must have ended once the faults have."""

CALM_S = 3.0
"""Seconds without work that count as its end."""


Index = LexicalIndex | DenseIndex


@dataclass
class Verdict:
    """What is missing and what is there twice, by name."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing is."""
        return not self.lost and not self.doubled


def await_quiet(world: World) -> None:
    """Wait until nothing is queued or running, and stays so for a moment.

    Raises:
        TimeoutError: work is left after QUIET_S; the message names it.
    """
    open_db = world.database()
    ends, calm = time.monotonic() + QUIET_S, 0.0
    left: list[str] = []
    while calm < CALM_S:
        with open_db() as db:
            rows = db.execute(select(Run.kind, Run.status).where(Run.status.in_(ACTIVE)))
            left = [f"{kind} {status}" for kind, status in rows]
        calm = 0.0 if left else calm + 0.5
        if time.monotonic() > ends:
            raise TimeoutError(f"work is left after {QUIET_S:.0f} s: {Counter(left)}")
        time.sleep(0.5)
    open_db.kw["bind"].dispose()


def check(open_db: OpenDb, indexes: Mapping[str, Index], told: Told) -> Verdict:
    """Compare everything that was accepted with everything that is there."""
    verdict = Verdict(lost=[f"call given up: {why}" for why in told.given_up])
    with open_db() as db:
        collection = db.scalars(select(Collection).where(Collection.name == COLLECTION)).one().id
        _documents(db, collection, told, verdict)
        _latents(db, collection, verdict)
        _questions(db, told, verdict)
        _runs(db, verdict)
        passages = set(db.scalars(select(Passage.id).where(Passage.collection_id == collection)))
    for name, index in indexes.items():
        _index(name, index, collection, passages, verdict)
    return verdict


def indexes_of(config: Settings, open_db: OpenDb) -> dict[str, Index]:
    """As the workers have them."""
    encoder = SentenceEncoder(config.sentence_encoder)
    dense = dense_index(config, open_db, encoder=encoder.name, dimension=encoder.dimension)
    return {"lexical": lexical_index(config), "dense": dense}


def _index(
    name: str, index: Index, collection: UUID, passages: set[UUID], verdict: Verdict
) -> None:
    held, count = index.held(collection), index.count(collection)
    verdict.lost += [f"{name} entry of passage {one}" for one in passages - held]
    verdict.doubled += [f"{name} entry of no passage {one}" for one in held - passages]
    if count > len(held):
        verdict.doubled.append(f"{count - len(held)} {name} entries more than passages")


def _documents(db: Session, collection: UUID, told: Told, verdict: Verdict) -> None:
    """Each in its last version, indexed, and covered by passages of that version alone."""
    rows = db.scalars(select(Document).where(Document.collection_id == collection)).all()
    there = {row.external_id: row for row in rows}
    for name, text in told.texts.items():
        row = there.pop(name, None)
        if text is None:
            if row is not None:
                verdict.doubled.append(f"{name} was deleted and is there")
        elif row is None:
            verdict.lost.append(f"{name} is not there")
        elif row.text != text or row.status is not DocumentStatus.INDEXED:
            verdict.lost.append(
                f"{name} is {row.status}, text {'same' if row.text == text else 'old'}"
            )
    verdict.doubled += [f"{name} was never written" for name in there]
    spans = db.execute(
        select(Passage.document_id, Passage.start, Passage.end, Passage.text).order_by(
            Passage.document_id, Passage.start
        )
    ).all()
    covered: dict[UUID, list[tuple[int, int, str]]] = {}
    for document, start, end, text in spans:
        covered.setdefault(document, []).append((start, end, text))
    for row in rows:
        _covered(row, covered.get(row.id, []), verdict)
    verdict.counts |= {"documents": len(rows), "passages": len(spans)}


def _covered(row: Document, spans: list[tuple[int, int, str]], verdict: Verdict) -> None:
    at = 0
    for start, end, text in spans:
        if start < at:
            verdict.doubled.append(f"{row.external_id} [{start}, {at}) in two passages")
        if row.text[at:start].strip():
            verdict.lost.append(f"{row.external_id} [{at}, {start}) in no passage")
        if row.text[start:end] != text:
            verdict.lost.append(f"{row.external_id} [{start}, {end}) holds other words")
        at = end
    if row.text[at:].strip():
        verdict.lost.append(f"{row.external_id} from {at} on in no passage")


def _latents(db: Session, collection: UUID, verdict: Verdict) -> None:
    """One block for each passage and the active fingerprint."""
    active = generations.active(db, collection)
    if active is None:
        verdict.lost.append("no generation is active")
        return
    found = Counter(
        db.scalars(
            select(Latent.passage_id)
            .join(Passage, Passage.id == Latent.passage_id)
            .where(Passage.collection_id == collection, Latent.fingerprint == active.fingerprint)
        )
    )
    wanted = db.scalars(select(Passage.id).where(Passage.collection_id == collection)).all()
    verdict.lost += [f"latent of passage {one}" for one in wanted if one not in found]
    verdict.doubled += [f"latent of passage {one}" for one, count in found.items() if count > 1]
    verdict.counts["latents"] = len(found)


def _questions(db: Session, told: Told, verdict: Verdict) -> None:
    """Answered, or failed by name; an answer from latents names one generation."""
    rows = db.execute(
        select(Question.id, Run.status, Run.error, Answer.question_id, Answer.generation_id)
        .join(Run, Run.id == Question.run_id)
        .outerjoin(Answer, Answer.question_id == Question.id)
    ).all()
    ended = {row.id: row for row in rows}
    verdict.lost += [f"question {one}" for one in told.questions if one not in ended]
    for row in rows:
        answered = row.status is RunStatus.SUCCEEDED and row.question_id is not None
        named = row.status is RunStatus.FAILED and bool((row.error or {}).get("code"))
        if not answered and not named:
            verdict.lost.append(f"question {row.id} is {row.status} without an answer")
        if answered and row.generation_id is None:
            verdict.lost.append(f"the answer of question {row.id} names no generation")
        if row.status is not RunStatus.SUCCEEDED and row.question_id is not None:
            verdict.doubled.append(f"question {row.id} is {row.status} and has an answer")
    states = Counter(str(row.status) for row in rows)
    verdict.counts |= {f"questions {state}": count for state, count in states.items()}


def _runs(db: Session, verdict: Verdict) -> None:
    """No lease is left; what failed did so by name."""
    leased = db.scalar(select(func.count()).select_from(Run).where(Run.lease.is_not(None)))
    if leased:
        verdict.doubled.append(f"{leased} leases are left")
    failed = db.execute(
        select(Run.kind, Run.error["code"].astext).where(Run.status == RunStatus.FAILED)
    )
    named = Counter(f"failed {kind}: {code}" for kind, code in failed)
    verdict.counts |= named
