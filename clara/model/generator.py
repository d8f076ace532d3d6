"""Question and latents -> answer text; or question and passages as plain text -> answer text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from torch import Tensor
from transformers import PreTrainedModel

from clara.errors import Cancelled, CheckpointMismatch, InvalidText, TextTooLong
from clara.model.backbone import embedding_of
from clara.model.decoding import Decoding, Lowered
from clara.model.opening import Openings
from clara.model.pieces import Pieces
from clara.model.sampling import GREEDY, Sampling
from clara.model.tokens import Tokens

OnToken = Callable[[str], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer and what it took."""

    text: str
    """Without special tokens, stripped."""
    token_ids: tuple[int, ...]
    """As generated; the last one is an end token where `finished`."""
    prompt_tokens: int
    first_token_s: float
    """Seconds from the call to the first token, tokenising included."""
    total_s: float
    finished: bool
    """The model ended its answer itself; False where `max_new_tokens` or the context ended it."""


@dataclass(frozen=True, slots=True)
class Hesitant:
    """By how much a refusal must lead what else could be answered, by what is read."""

    from_text: Lowered | None = None
    from_latents: Lowered | None = None


HESITANT_NEVER = Hesitant()
"""A refusal is said where it is the likeliest."""


@dataclass(frozen=True)
class _Options:
    """What one decoding is run with."""

    model: PreTrainedModel
    max_new_tokens: int
    should_stop: ShouldStop | None
    sampling: Sampling
    lowered: Lowered | None = None


@dataclass(frozen=True)
class Generator:
    """The base with the generator adapter, and the base as it is for plain text."""

    model: PreTrainedModel
    """Causal language model that reads latents."""
    text_model: PreTrainedModel
    """Causal language model that reads plain text: the base without an adapter."""
    reads_text: bool
    """Whether `model` reads plain text too, and `text_model` nothing."""
    tokens: Tokens
    sep: bool
    """Whether latents leave the separators in place, as the checkpoint was trained."""
    context: int
    """Longest prompt and answer together, in tokens."""
    ends: frozenset[int]
    """Ids that end an answer."""
    center: Tensor | None = None
    """(width,): added to every row of a latent, where latents are kept around zero."""
    openings: Openings | None = None
    """Of prompts, computed once; None while the models' weights still change."""
    hesitant: Hesitant = HESITANT_NEVER
    """What it takes for `model` to refuse a question."""

    def answer_from_latents(
        self,
        question: str,
        latents: Sequence[Tensor],
        *,
        max_new_tokens: int,
        on_token: OnToken | None = None,
        should_stop: ShouldStop | None = None,
        sampling: Sampling = GREEDY,
    ) -> Generated:
        """Answer from latents (rows, width), best passage first.

        Args:
            question: any text; control tokens in it are read as plain text.
            latents: of the chosen passages; the prompt has as many places.
            max_new_tokens: most tokens of the answer; fewer where the context ends.
            on_token: called with each new piece of text, in this thread.
            should_stop: asked before every token.
            sampling: the most likely tokens unless given.
        Raises:
            CheckpointMismatch: a latent has another shape than this checkpoint makes.
            TextTooLong: the prompt leaves no room in the base's context.
            Cancelled: `should_stop` said so.
        """
        start = perf_counter()
        prompt = self.prompt_from_latents(question, latents)
        lowered = self.hesitant.from_latents
        chosen = _Options(self.model, max_new_tokens, should_stop, sampling, lowered)
        return self._answer(prompt, chosen, start, on_token)

    def answer_from_text(
        self,
        question: str,
        passages: Sequence[str],
        *,
        max_new_tokens: int,
        on_token: OnToken | None = None,
        should_stop: ShouldStop | None = None,
        sampling: Sampling = GREEDY,
    ) -> Generated:
        """Answer from passages as plain text, best first. Otherwise as `answer_from_latents`."""
        start = perf_counter()
        prompt = self.prompt_from_text(question, passages)
        reader = self.model if self.reads_text else self.text_model
        lowered = self.hesitant.from_text if self.reads_text else None
        chosen = _Options(reader, max_new_tokens, should_stop, sampling, lowered)
        return self._answer(prompt, chosen, start, on_token)

    def prompt_from_latents(self, question: str, latents: Sequence[Tensor]) -> Tensor:
        """Input embeddings (tokens, width) with the latents in their places."""
        text = self.tokens.prompts.from_latents(question, [len(latent) for latent in latents])
        return self.place(self.tokens.encode([text])[0], latents)

    def prompt_from_text(self, question: str, passages: Sequence[str]) -> Tensor:
        """Input embeddings (tokens, width)."""
        text = self.tokens.prompts.from_text(question, passages)
        return self._embed(self.tokens.encode([text])[0])

    def place(self, ids: Sequence[int], latents: Sequence[Tensor]) -> Tensor:
        """Embeddings of a prompt, with latents over those of its memory tokens.

        Returns:
            (tokens, width).
        """
        embeds = self._embed(ids)
        for latent in latents:
            self._check_shape(latent, embeds.shape[1])
        rows = [len(latent) for latent in latents]
        for first, latent in zip(starts(ids, rows, self.tokens, self.sep), latents, strict=True):
            read = latent if self.center is None else latent.to(self.center) + self.center
            embeds[first : first + len(latent)] = read.to(embeds)
        return embeds

    def _check_shape(self, latent: Tensor, width: int) -> None:
        most = self.tokens.n_mem
        fewest = most if self.center is None else 1
        if latent.dim() != 2 or latent.shape[1] != width or not fewest <= len(latent) <= most:
            rows = str(most) if fewest == most else f"{fewest} to {most}"
            raise CheckpointMismatch(
                f"a latent has shape {tuple(latent.shape)}; "
                f"this checkpoint makes ({rows}, {width})",
                remedy="Compress the passage with this checkpoint",
            )

    def generate(
        self,
        prompts: Sequence[Tensor],
        *,
        max_new_tokens: int,
        model: PreTrainedModel | None = None,
        on_ids: Callable[[list[int]], None] | None = None,
        should_stop: ShouldStop | None = None,
        sampling: Sampling = GREEDY,
        lowered: Lowered | None = None,
    ) -> list[list[int]]:
        """Token ids for prompts (tokens, width), run as one batch.

        Args:
            prompts: input embeddings, of any lengths.
            max_new_tokens: most tokens per prompt; fewer where the context ends.
            model: `self.model` unless given.
            on_ids: called with the new id of every prompt, once per step.
            should_stop: asked before every step.
            sampling: the most likely tokens unless given.
            lowered: as `hesitant` says, where the prompts ask questions.
        Returns:
            New ids per prompt, up to and with its end token.
        Raises:
            TextTooLong: a prompt leaves no room in the base's context.
            Cancelled: `should_stop` said so.
        """
        chosen = _Options(model or self.model, max_new_tokens, should_stop, sampling, lowered)
        answers: list[list[int]] = [[] for _ in prompts]
        for ids in self._steps(prompts, chosen):
            if on_ids is not None:
                on_ids(ids)
            for answer, token in zip(answers, ids, strict=True):
                if not answer or answer[-1] not in self.ends:
                    answer.append(token)
            if all(answer[-1] in self.ends for answer in answers):
                break
        return answers

    def stream(
        self,
        prompt: Tensor,
        *,
        max_new_tokens: int,
        model: PreTrainedModel | None = None,
        sampling: Sampling = GREEDY,
        lowered: Lowered | None = None,
    ) -> Iterator[str]:
        """The text for one prompt (tokens, width), piece by piece, as the caller asks for it.

        The model computes between two pieces, in the caller's thread; who stops asking stops it.
        Joined, the pieces are the decoded ids of `generate`, white space included. Otherwise as
        `generate`.
        """
        pieces = Pieces(self.tokens.decode)
        chosen = _Options(model or self.model, max_new_tokens, None, sampling, lowered)
        for (token,) in self._steps([prompt], chosen):
            if piece := pieces.put(token):
                yield piece
            if token in self.ends:
                break
        if piece := pieces.end():
            yield piece

    def text_of(self, ids: Sequence[int]) -> str:
        """Answer text of generated ids: without special tokens, stripped."""
        return self.tokens.decode(ids).strip()

    def _steps(self, prompts: Sequence[Tensor], chosen: _Options) -> Iterator[list[int]]:
        """The new id of every prompt, step by step, end tokens or not."""
        longest = max(len(prompt) for prompt in prompts)
        if longest >= self.context:
            raise TextTooLong(
                f"the prompt has {longest} tokens; the base reads {self.context}",
                limit=self.context,
                remedy="Use fewer or shorter passages",
            )
        opening = self.openings.of(chosen.model) if self.openings else None
        decoding = Decoding(chosen.model, prompts, chosen.sampling, opening, chosen.lowered)
        for _ in range(min(chosen.max_new_tokens, self.context - longest)):
            if chosen.should_stop is not None and chosen.should_stop():
                raise Cancelled("the answer was cancelled")
            yield decoding.step()

    def _answer(
        self, prompt: Tensor, chosen: _Options, start: float, on_token: OnToken | None
    ) -> Generated:
        pieces = Pieces(self.tokens.decode, stripped=True)
        first_at: list[float] = []

        def take(ids: list[int]) -> None:
            if not first_at:
                first_at.append(perf_counter())
            if on_token is not None and (piece := pieces.put(ids[0])):
                on_token(piece)

        (ids,) = self.generate(
            [prompt],
            max_new_tokens=chosen.max_new_tokens,
            model=chosen.model,
            on_ids=take,
            should_stop=chosen.should_stop,
            sampling=chosen.sampling,
            lowered=chosen.lowered,
        )
        if on_token is not None and (piece := pieces.end()):
            on_token(piece)
        return Generated(
            text=self.text_of(ids),
            token_ids=tuple(ids),
            prompt_tokens=len(prompt),
            first_token_s=(first_at[0] if first_at else perf_counter()) - start,
            total_s=perf_counter() - start,
            finished=bool(ids) and ids[-1] in self.ends,
        )

    def with_openings(self) -> Generator:
        """The same, for models whose weights stay as they are: what prompts open with is kept."""
        ids = self.tokens.encode([self.tokens.prompts.from_latents("", [1])])[0]
        first = next(at for at, token in enumerate(ids) if token in self.tokens.memory)
        return replace(self, openings=Openings(self._embed(ids[:first])))

    def _embed(self, ids: Sequence[int]) -> Tensor:
        layer = embedding_of(self.model)
        embeds: Tensor = layer(torch.tensor(ids, device=layer.weight.device))
        return embeds


def starts(ids: Sequence[int], rows: Sequence[int], tokens: Tokens, sep: bool) -> list[int]:
    """Where each latent begins in a prompt: at the first memory token, one behind the other.

    A separator stays between two latents where `sep`; without it they run over the separators,
    which checkpoints trained that way are used to.

    Args:
        ids: of the prompt.
        rows: of each latent.
        tokens: of the checkpoint.
        sep: of the checkpoint.
    Raises:
        InvalidText: the prompt has another number of memory tokens than there are rows.
    """
    slots = [at for at, token in enumerate(ids) if token in tokens.memory]
    if len(slots) != sum(rows):
        raise InvalidText("the question contains a memory token of the model", field="question")
    at = slots[0] if slots else 0
    found = []
    for count in rows:
        found.append(at)
        at += count + sep
    return found
