"""Question and latents -> answer text; or question and passages as plain text -> answer text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from clara.errors import Cancelled, CheckpointMismatch, InvalidText, TextTooLong
from clara.model.backbone import embedding_of, head_of
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


@dataclass(frozen=True)
class Generator:
    """The base with the generator adapter, and the base as it is for plain text. Greedy."""

    model: PreTrainedModel
    """Causal language model that reads latents."""
    text_model: PreTrainedModel
    """Causal language model that reads plain text: the base without an adapter."""
    tokens: Tokens
    sep: bool
    """Whether latents leave the separators in place, as the checkpoint was trained."""
    context: int
    """Longest prompt and answer together, in tokens."""
    ends: frozenset[int]
    """Ids that end an answer."""
    center: Tensor | None = None
    """(width,): added to every row of a latent, where latents are kept around zero."""

    def answer_from_latents(
        self,
        question: str,
        latents: Sequence[Tensor],
        *,
        max_new_tokens: int,
        on_token: OnToken | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Generated:
        """Answer from latents (rows, width), best passage first.

        Args:
            question: any text; control tokens in it are read as plain text.
            latents: of the chosen passages; the prompt has as many places.
            max_new_tokens: most tokens of the answer; fewer where the context ends.
            on_token: called with each new piece of text, in this thread.
            should_stop: asked before every token.
        Raises:
            CheckpointMismatch: a latent has another shape than this checkpoint makes.
            TextTooLong: the prompt leaves no room in the base's context.
            Cancelled: `should_stop` said so.
        """
        start = perf_counter()
        prompt = self.prompt_from_latents(question, latents)
        return self._answer(self.model, prompt, start, max_new_tokens, on_token, should_stop)

    def answer_from_text(
        self,
        question: str,
        passages: Sequence[str],
        *,
        max_new_tokens: int,
        on_token: OnToken | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Generated:
        """Answer from passages as plain text, best first. Raises as `answer_from_latents`."""
        start = perf_counter()
        prompt = self.prompt_from_text(question, passages)
        return self._answer(self.text_model, prompt, start, max_new_tokens, on_token, should_stop)

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
    ) -> list[list[int]]:
        """Greedy token ids for prompts (tokens, width), run as one batch.

        Args:
            prompts: input embeddings, of any lengths.
            max_new_tokens: most tokens per prompt; fewer where the context ends.
            model: `self.model` unless given.
            on_ids: called with the new id of every prompt, once per step.
            should_stop: asked before every step.
        Returns:
            New ids per prompt, up to and with its end token.
        """
        model = self.model if model is None else model
        longest = max(len(prompt) for prompt in prompts)
        if longest >= self.context:
            raise TextTooLong(
                f"the prompt has {longest} tokens; the base reads {self.context}",
                limit=self.context,
                remedy="Use fewer or shorter passages",
            )
        answers: list[list[int]] = [[] for _ in prompts]
        with torch.inference_mode():
            decode = _Decode(model, prompts, longest)
            for _ in range(min(max_new_tokens, self.context - longest)):
                if should_stop is not None and should_stop():
                    raise Cancelled("the answer was cancelled")
                ids = decode.step()
                if on_ids is not None:
                    on_ids(ids)
                for answer, token in zip(answers, ids, strict=True):
                    if not answer or answer[-1] not in self.ends:
                        answer.append(token)
                if all(answer[-1] in self.ends for answer in answers):
                    break
        return answers

    def text_of(self, ids: Sequence[int]) -> str:
        """Answer text of generated ids: without special tokens, stripped."""
        return self.tokens.decode(ids).strip()

    def _answer(
        self,
        model: PreTrainedModel,
        prompt: Tensor,
        start: float,
        max_new_tokens: int,
        on_token: OnToken | None,
        should_stop: ShouldStop | None,
    ) -> Generated:
        stream = _Stream(self.tokens.decode, on_token)
        (ids,) = self.generate(
            [prompt],
            max_new_tokens=max_new_tokens,
            model=model,
            on_ids=stream.put,
            should_stop=should_stop,
        )
        stream.end()
        return Generated(
            text=self.text_of(ids),
            token_ids=tuple(ids),
            prompt_tokens=len(prompt),
            first_token_s=(stream.first_at or perf_counter()) - start,
            total_s=perf_counter() - start,
            finished=bool(ids) and ids[-1] in self.ends,
        )

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


class _Decode:
    """One batch on its way through the model: a cache, and the next step's input."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Tensor], longest: int) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._embeds = torch.stack([_left_filled(prompt, longest) for prompt in prompts])
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self._embeds.device)
        self._mask: Tensor | None = None
        self._next = lengths
        if int(lengths.min()) < longest:
            columns = torch.arange(longest, device=lengths.device)
            self._mask = (columns >= (longest - lengths).unsqueeze(1)).long()

    def step(self) -> list[int]:
        """The next id of every prompt. Only the last position goes through the head."""
        hidden = self._model.base_model(
            inputs_embeds=self._embeds,
            attention_mask=self._mask,
            position_ids=self._positions(),
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        ids: Tensor = head_of(self._model)(hidden).argmax(dim=-1)
        self._advance(ids)
        found: list[int] = ids.tolist()
        return found

    def _positions(self) -> Tensor | None:
        """Positions count from each prompt's own first token; None where all are equally long."""
        if self._mask is None:
            return None
        if self._embeds.shape[1] == 1:
            return self._next.unsqueeze(1) - 1
        return (self._mask.cumsum(dim=1) - 1).clamp(min=0)

    def _advance(self, ids: Tensor) -> None:
        self._embeds = embedding_of(self._model)(ids).unsqueeze(1)
        self._next = self._next + 1
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)


def _left_filled(prompt: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(prompt, (0, 0, length - len(prompt), 0))


class _Stream:
    """Ids of one answer -> pieces of text, held back while a character is incomplete."""

    def __init__(self, decode: Callable[[Sequence[int]], str], on_token: OnToken | None) -> None:
        self._decode = decode
        self._on_token = on_token
        self._told: list[int] = []
        self._held: list[int] = []
        self._begun = False
        self.first_at: float | None = None

    def put(self, ids: list[int]) -> None:
        """Take the next id; tell its text once it ends in a whole character."""
        if self.first_at is None:
            self.first_at = perf_counter()
        if self._on_token is not None:
            self._held += ids
            self._tell(whole=False)

    def end(self) -> None:
        """Tell what was held back."""
        if self._on_token is not None:
            self._tell(whole=True)

    def _tell(self, *, whole: bool) -> None:
        """Decode from the last told ids on, so that a tokenizer's leading space stays in place."""
        before = self._decode(self._told)
        piece = self._decode(self._told + self._held)[len(before) :]
        if not piece or (piece.endswith("\ufffd") and not whole):
            return
        self._told, self._held = self._held, []
        piece = piece if self._begun else piece.lstrip()
        if piece and self._on_token is not None:
            self._begun = True
            self._on_token(piece)
