"""What `RAGMaster.query` gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clara.evidence import find_evidence
from clara.rag.search import Passage
from clara.sentences import sentences
from clara.types import Mode


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage the answer was built on."""

    rank: int
    """From 1, the best."""
    document: int
    """Position of its document among those given, from 0."""
    start: int
    """First character of the passage in its document, from 0."""
    end: int
    text: str
    score: float
    """Cosine of query latent and latent; of an untrained checkpoint, the fused ranks in [0, 1]."""
    evidence_start: int | None
    """First character, in the document, of the sentence the answer rests on; None: no such one."""
    evidence_end: int | None

    @property
    def evidence(self) -> str | None:
        """The sentence the answer rests on."""
        if self.evidence_start is None or self.evidence_end is None:
            return None
        return self.text[self.evidence_start - self.start : self.evidence_end - self.start]


class Answered(tuple[str, list[Citation]]):
    """`(response, citations)`, and what else there is to say as attributes."""

    mode: Mode
    """What the generator read."""
    refused: bool
    """Whether the response is the sentence that refuses."""
    notices: tuple[str, ...]
    """What a reader should know about how the answer came about."""

    def __new__(
        cls,
        response: str,
        citations: list[Citation],
        *,
        mode: Mode,
        refused: bool = False,
        notices: Sequence[str] = (),
    ) -> Answered:
        """A pair with attributes."""
        made = super().__new__(cls, (response, citations))
        made.mode, made.refused, made.notices = mode, refused, tuple(notices)
        return made

    @property
    def response(self) -> str:
        """The answer's text."""
        return self[0]

    @property
    def citations(self) -> list[Citation]:
        """The passages read, best first."""
        return self[1]


@dataclass(frozen=True, slots=True)
class Scored:
    """A passage as it was ranked."""

    passage: Passage
    score: float


def citation(rank: int, read: Scored, answer: str, question: str) -> Citation:
    """A passage that was read, with the sentence that supports the answer."""
    passage = read.passage
    evidence = find_evidence(passage.text, answer, question)
    return Citation(
        rank=rank,
        document=passage.document,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        score=read.score,
        evidence_start=passage.start + evidence.start if evidence else None,
        evidence_end=passage.start + evidence.end if evidence else None,
    )


def is_supported(answer: str, question: str, passages: Sequence[Passage]) -> bool:
    """Whether some sentence of the passages supports the answer, or one sentence of it."""
    told = [answer, *(answer[span.start : span.end] for span in sentences(answer))]
    return any(
        find_evidence(passage.text, part, question) is not None
        for part in told
        for passage in passages
    )
