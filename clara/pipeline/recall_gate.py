"""The recall gate: a new generation must find and tell what the active one does.

Both sides are asked the same questions, the way a user is answered. Recall@5 is the share of
passages that are among the five an answer about them reads; agreement is the mean token F1 of
answers from latents with the answer that the active checkpoint gives from the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from clara.errors import GenerationRefused, LatentsNotReady, QuestionTooLong
from clara.evaluation.metrics import mean, score_answer
from clara.pipeline.answer import answer_question
from clara.pipeline.asking import Answering, Asked
from clara.pipeline.gate_questions import Case
from clara.pipeline.retrieve import retrieve
from clara.types import Mode

CUT = 5
"""Passages read: the 5 of Recall@5."""

ANSWER_TOKENS = 48
"""Longest answer of the gate."""


@dataclass(frozen=True)
class Told:
    """What one side made of one question."""

    found: bool | None = None
    """Whether the passage asked about was among those read; None where there is none."""
    latent: str | None = None
    """The answer from latents; None where it was not asked for, or a latent is lacking."""
    text: str | None = None
    """The answer from the words."""

    def as_list(self) -> list[Any]:
        """As it is kept between two visits, in JSON that Postgres takes."""
        said = (text and text.replace("\x00", "") for text in (self.latent, self.text))
        return [self.found, *said]


@dataclass(frozen=True)
class Pair:
    """A measure of the active generation and of the new one; None where it was not measured."""

    active: float | None
    new: float | None
    of: int
    """Questions it rests on."""
    margin: float
    """How far the new one may be below."""

    @property
    def passed(self) -> bool:
        """Whether the new one is not worse by more than the margin."""
        if self.active is None or self.new is None:
            return True
        return self.new >= self.active - self.margin - 1e-9

    def said(self, name: str, unit: str) -> str:
        """In words and numbers."""
        if self.active is None or self.new is None:
            return f"{name} was not measured"
        change = "fell" if self.new < self.active else "went"
        return (
            f"{name} of {self.of} {unit} {change} from {self.active:.3f} to {self.new:.3f} "
            f"(margin {self.margin:g})"
        )


@dataclass(frozen=True)
class Verdict:
    """What the gate found."""

    recall: Pair
    agreement: Pair

    @property
    def passed(self) -> bool:
        """Whether the new generation may answer."""
        return self.recall.passed and self.agreement.passed

    def as_dict(self) -> dict[str, Any]:
        """As it is kept with the generation."""
        return {
            "passed": self.passed,
            f"recall@{CUT}": asdict(self.recall),
            "agreement": asdict(self.agreement),
            "reasons": self.reasons(),
        }

    def reasons(self) -> list[str]:
        """Both measures, in words and numbers."""
        return [
            self.recall.said(f"Recall@{CUT}", "passages"),
            self.agreement.said("agreement of answers from latents with the text", "questions"),
        ]

    def refusal(self, number: int) -> GenerationRefused:
        """What is told where it did not pass."""
        worse = [pair for pair in (self.recall, self.agreement) if not pair.passed]
        said = [
            reason
            for pair, reason in zip((self.recall, self.agreement), self.reasons(), strict=True)
            if pair in worse
        ]
        return GenerationRefused(
            f"generation {number} does not take over: {'; '.join(said)}",
            field="checkpoint",
            limit=worse[0].margin,
            remedy="The active generation goes on answering. Train further, or take it whatever "
            "the gate says with `clara recompress --no-gate`.",
        )


def ask(
    case: Case,
    collection: UUID,
    answering: Answering,
    *,
    from_text: bool,
    stopped: Callable[[], bool],
) -> Told:
    """Put one question to one checkpoint and the latents it made.

    Args:
        case: the question.
        collection: its id.
        answering: of one checkpoint.
        from_text: whether it also answers from the words, for both sides to be compared with.
        stopped: asked between tokens.
    Raises:
        IndexUnavailable: neither retriever answers.
        Cancelled: `stopped` said so.
    """
    asked = Asked(
        uuid4(),
        collection,
        case.question,
        Mode.AUTO,
        top_k=CUT,
        max_answer_tokens=ANSWER_TOKENS,
    )
    try:
        read = {one.candidate.passage_id for one in retrieve(asked, answering).chosen}
    except QuestionTooLong:
        return Told()
    found = case.passage in read if case.passage else None
    if not case.answered:
        return Told(found)
    trained = answering.models.checkpoint.trained
    latent = _answer(asked, Mode.LATENT, answering, stopped) if trained else None
    text = _answer(asked, Mode.TEXT, answering, stopped) if from_text else None
    return Told(found, latent, text)


def judge(
    active: Sequence[Told], new: Sequence[Told], *, recall_margin: float, agreement_margin: float
) -> Verdict:
    """Compare what both sides made of the same questions, in their order.

    A question counts where both sides took it; a checkpoint that is not trained answers from the
    words, and its agreement is not measured.
    """
    both = list(zip(active, new, strict=True))
    found = [
        (old.found, now.found)
        for old, now in both
        if old.found is not None and now.found is not None
    ]
    told = [
        (_f1(old.latent, old.text), _f1(now.latent, old.text))
        for old, now in both
        if old.text is not None and old.latent is not None and now.latent is not None
    ]
    return Verdict(
        recall=_pair([(float(a), float(b)) for a, b in found], recall_margin),
        agreement=_pair(told, agreement_margin),
    )


def _pair(values: Sequence[tuple[float, float]], margin: float) -> Pair:
    if not values:
        return Pair(None, None, 0, margin)
    active, new = (round(mean(side), 4) for side in zip(*values, strict=True))
    return Pair(active, new, len(values), margin)


def _f1(answer: str | None, text: str | None) -> float:
    answer, text = answer or "", text or ""
    return 1.0 if answer.split() == text.split() else score_answer(answer, text).f1


def _answer(
    asked: Asked, mode: Mode, answering: Answering, stopped: Callable[[], bool]
) -> str | None:
    try:
        return answer_question(replace(asked, mode=mode), answering, stopped=stopped).text
    except LatentsNotReady:
        return None
