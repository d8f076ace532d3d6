"""The fidelity audit: what a passage's latent keeps of its numbers and names.

The generator tells a passage again from its latent alone; what it cannot say, an answer from the
latent cannot say either. A passage that loses too much is read as text from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import func, select, update

from clara.db.connect import OpenDb
from clara.db.tables import Latent, Passage
from clara.evaluation.rouge import facts_kept
from clara.pipeline.asking import Answering

if TYPE_CHECKING:
    from torch import Tensor

PIECES = 8
"""Pieces of text, a token or two each, between which a question gets its turn."""

ROOM = 1.25
"""Tokens a restatement may have for one of the passage."""

NO_FACTS = 1.0
"""Fidelity of a passage without numbers and names: there is nothing to lose."""


@dataclass
class FidelityReport:
    """What one audit of a collection did, in passages."""

    audited: int = 0
    """Told and compared."""
    failed: int = 0
    """Of them, below the threshold."""
    without_facts: int = 0
    """Without a number or a name to compare: not told."""
    damaged: int = 0
    """Whose latent could not be read; it is lacking from now on."""
    judged_again: int = 0
    """Audited before, on the other side of the threshold now."""
    as_text: int = 0
    """Of the collection and fingerprint, read as text now."""
    kept: float | None = None
    """Mean share of numbers and names kept, over the audited."""
    complete: bool = True
    """Whether the sample was looked through, rather than stopped by time or its worker's end."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """As it is reported."""
        rounded = {"seconds": round(self.seconds, 3)}
        return asdict(self) | rounded | ({} if self.kept is None else {"kept": round(self.kept, 4)})


@dataclass(frozen=True)
class _Passage:
    id: UUID
    text: str
    tokens: int


def audit(
    collection: UUID,
    answering: Answering,
    *,
    passages: int,
    threshold: float,
    stopped: Callable[[], bool],
) -> FidelityReport:
    """Tell passages from their latents that were not audited yet, and mark those that lose facts.

    Each is committed by itself, so that a kill loses one. Passage ids follow from hashes: in their
    order, any number of passages is a fair sample, and night by night all get their turn.

    Args:
        collection: its id.
        answering: the services of the checkpoint whose latents are looked at.
        passages: to look at, at most.
        threshold: share of numbers and names to keep; passages audited before are judged by it
            again, so that another threshold marks and unmarks them.
        stopped: polled every few tokens; ends the audit early, in order.
    """
    began = monotonic()
    report, shares = FidelityReport(), list[float]()
    db, fingerprint = answering.open_db, answering.fingerprint
    report.judged_again = _judge_again(db, collection, fingerprint, threshold)
    for passage in _sample(db, collection, fingerprint, passages):
        if facts_kept("", passage.text) is None:
            _mark(db, passage.id, fingerprint, NO_FACTS, threshold)
            report.without_facts += 1
            continue
        latent = answering.latents.get(fingerprint, [passage.id]).get(passage.id)
        if latent is None:
            report.damaged += 1
            continue
        told = _tell(latent, passage, answering, stopped)
        if told is None:
            report.complete = False
            break
        shares.append(facts_kept(told, passage.text) or 0.0)
        _mark(db, passage.id, fingerprint, shares[-1], threshold)
    report.audited = len(shares)
    report.failed = sum(share < threshold for share in shares)
    report.kept = sum(shares) / len(shares) if shares else None
    report.as_text = served_as_text(db, collection, fingerprint)
    report.seconds = monotonic() - began
    return report


def served_as_text(open_db: OpenDb, collection: UUID, fingerprint: str) -> int:
    """Passages of a collection whose latents an audit found too poor to answer from."""
    marked = (
        select(func.count())
        .select_from(Latent)
        .join(Passage, Passage.id == Latent.passage_id)
        .where(Passage.collection_id == collection, Latent.fingerprint == fingerprint)
        .where(Latent.serve_as_text)
    )
    with open_db() as db:
        return db.scalar(marked) or 0


def _judge_again(open_db: OpenDb, collection: UUID, fingerprint: str, threshold: float) -> int:
    """Mark and unmark passages that were audited before. Returns how many changed."""
    poor = Latent.fidelity < threshold
    changed = (
        update(Latent)
        .where(
            Latent.passage_id == Passage.id,
            Passage.collection_id == collection,
            Latent.fingerprint == fingerprint,
            Latent.fidelity.is_not(None),
            Latent.serve_as_text != poor,
        )
        .values(serve_as_text=poor)
        .returning(Latent.passage_id)
    )
    with open_db.begin() as db:
        return len(db.scalars(changed).all())


def _sample(open_db: OpenDb, collection: UUID, fingerprint: str, count: int) -> list[_Passage]:
    """The next passages that were not audited yet."""
    wanted = (
        select(Passage.id, Passage.text, Passage.tokens)
        .join(Latent, Latent.passage_id == Passage.id)
        .where(
            Passage.collection_id == collection,
            Latent.fingerprint == fingerprint,
            Latent.fidelity.is_(None),
        )
        .order_by(Passage.id)
        .limit(count)
    )
    with open_db() as db:
        return [_Passage(*row) for row in db.execute(wanted)]


def _mark(open_db: OpenDb, passage: UUID, fingerprint: str, share: float, threshold: float) -> None:
    """One that was deleted or written again meanwhile is left alone."""
    written = (
        update(Latent)
        .where(Latent.passage_id == passage, Latent.fingerprint == fingerprint)
        .values(fidelity=share, serve_as_text=share < threshold)
    )
    with open_db.begin() as db:
        db.execute(written)


def _tell(
    latent: Tensor, passage: _Passage, answering: Answering, stopped: Callable[[], bool]
) -> str | None:
    """What the generator says of a latent (rows, width), greedily; None where it was stopped.

    On the engine a few tokens at a time, behind every question.
    """
    from clara.evaluation.paraphrase import INSTRUCTION

    generator, tokens = answering.models.generator, answering.models.tokens
    most = min(tokens.doc_max_length, round(ROOM * passage.tokens) + PIECES)

    def begin() -> Iterator[str]:
        asked = tokens.prompts.paraphrase([len(latent)], INSTRUCTION)
        prompt = generator.place(tokens.encode([asked])[0], [latent])
        return generator.stream(prompt, max_new_tokens=most)

    pieces = answering.engine.submit(begin, urgent=False).result()
    told: list[str] = []
    while not stopped():
        some = answering.engine.submit(lambda: list(islice(pieces, PIECES)), urgent=False).result()
        if not some:
            return "".join(told).strip()
        told += some
    return None
