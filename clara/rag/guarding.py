"""Whether the passages of a question speak of it at all, by the sentence encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clara.answerability.port import PairEncoder, unanswered
from clara.library.installed import has_default_encoder, installed_answerability
from clara.mentions import MIN_MENTION, TokenEncoder, faintest_mention
from clara.nearness import MIN_COSINE, NOTHING_IS_FAR, bound, is_near
from clara.rag.config import DEFAULT, RagConfig
from clara.rag.search import Encoder, cosines_of
from clara.wording import NOT_ANSWERED, NOT_MENTIONED


@dataclass(frozen=True, slots=True)
class Bounds:
    """What passages must reach for there to be an answer."""

    cosine: float
    mention: float
    answerability: float | None = NOTHING_IS_FAR
    """None: as measured with the encoder."""

    @property
    def any(self) -> bool:
        """Whether there is one."""
        chosen = self.answerability
        return chosen is None or max(self.cosine, self.mention, chosen) > NOTHING_IS_FAR


def bounds_of(config: RagConfig) -> Bounds:
    """Those of a configuration; where it says nothing, those of the default encoder."""
    own = config.retrieval.encoder == DEFAULT
    default = own and has_default_encoder()
    reads_pairs = own and installed_answerability() is not None
    guards = config.guardrails
    return Bounds(
        cosine=bound(guards.min_cosine, MIN_COSINE, default_encoder=default),
        mention=bound(guards.min_mention, MIN_MENTION, default_encoder=default),
        answerability=guards.min_answerability if reads_pairs else NOTHING_IS_FAR,
    )


def beside(
    question: str,
    read: Sequence[str],
    found: Iterable[str],
    vectors: Encoder,
    encoder: object,
    bounds: Bounds,
) -> list[str] | None:
    """Notices for a refusal, where the passages are beside the question; None where they are not.

    Args:
        question: any text.
        read: passages that would be read, one or more.
        found: all that came with the question.
        vectors: of sentences.
        encoder: of tokens, or names are not looked for; of pairs, or whether they answer is not.
        bounds: in effect.
    """
    if bounds.cosine > NOTHING_IS_FAR:
        cosines = cosines_of(question, read, vectors)
        if not is_near(question, read, cosines, bounds.cosine):
            return []
    if bounds.mention > NOTHING_IS_FAR and isinstance(encoder, TokenEncoder):
        faintest = faintest_mention(question, read, encoder, found)
        if faintest is not None and faintest.cosine < bounds.mention:
            return [NOT_MENTIONED.format(name=faintest.name)]
    if isinstance(encoder, PairEncoder):
        missed = unanswered(question, read, encoder, bounds.answerability)
        return [NOT_ANSWERED] if missed else None
    return None
