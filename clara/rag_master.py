"""`RAGMaster`: a question and its documents -> an answer with citations, in one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from clara.errors import InvalidInput, InvalidSettings
from clara.library import checks
from clara.library.cache import TextCache
from clara.library.compressing import Splitter, compress
from clara.library.installed import installed_answerability, installed_encoder, installed_models
from clara.library.loading import dtype_of, open_models
from clara.library.model import CLaRa
from clara.model.sampling import Sampling
from clara.rag.answered import Answered, Citation, Scored, citation, is_supported
from clara.rag.config import DEFAULT, RagConfig, changed, read_config
from clara.rag.guarding import beside, bounds_of
from clara.rag.search import Passage, fused, narrow, passages_of
from clara.rag.vectors import KeptVectors
from clara.types import LATENT_WEIGHT, Mode
from clara.wording import (
    NO_ENCODER,
    NOT_IN_DOCUMENTS,
    UNSUPPORTED,
    UNTRAINED,
    UNTRAINED_TEXT,
    WITHOUT_DOCUMENTS,
)

__all__ = ["Answered", "Citation", "RAGMaster"]

CACHE_BYTES = 256 * 2**20
"""Of latents kept from one question to the next, and of vectors."""


class RAGMaster:
    """Splits, compresses, chooses, answers and cites, in the calling thread.

    For one thread at a time. Latents and vectors of passages are kept from one
    question to the next.

    Args:
        compression_model: a `CLaRa`, whose own rate and length count; or folder or Hub name of a
            checkpoint; None takes the one `config` names.
        compression_rate: tokens per row of a latent; must be one of the checkpoint's. None takes
            that of `config`, else the checkpoint's own.
        top_k: most passages an answer is built on; that of `config` where None.
        config: everything else; the defaults of `rag_config.yaml` where None.
        base: folder or Hub name of the base, where the one the checkpoint names is not to be found.
        device: `cpu`, `cuda`, ...; that of `config` where None.
        dtype: of weights and computation; by the device where None.
        cache_bytes: of latents kept between questions, and of vectors as many; 0 keeps none.
    Raises:
        InvalidSettings: a value out of range, or a `doc_max_length` the checkpoint does not have.
        ModelMissing, InvalidCheckpoint: as `CLaRa.from_pretrained`.
    """

    def __init__(
        self,
        compression_model: CLaRa | str | Path | None = None,
        compression_rate: int | None = None,
        top_k: int | None = None,
        *,
        config: RagConfig | None = None,
        base: str | Path | None = None,
        device: str | None = None,
        dtype: torch.dtype | str | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        given = isinstance(compression_model, CLaRa)
        self.config = changed(
            config or RagConfig(),
            compression={
                "model": None if compression_model is None or given else str(compression_model),
                "rate": compression_rate,
                "device": device,
                "base": None if base is None else str(base),
            },
            reranking={"top_k": top_k},
        )
        self._borrowed = given
        if isinstance(compression_model, CLaRa):
            _check_rate(compression_model, compression_rate)
            self.model = compression_model
        else:
            self.model = _open(self.config, dtype_of(dtype))
        generation = self.config.generation
        self._sampling = Sampling(generation.temperature, generation.seed)
        self._splitter = Splitter(self.model.models.tokens)
        self._cache_bytes = cache_bytes
        self._latents: TextCache[Tensor] = TextCache(cache_bytes)
        self._encoder: KeptVectors | None = None

    @classmethod
    def from_config(
        cls,
        path: str | Path = "rag_config.yaml",
        compression_model: CLaRa | str | Path | None = None,
        *,
        dtype: torch.dtype | str | None = None,
    ) -> RAGMaster:
        """As a file says.

        Args:
            path: see `rag_config.yaml` for the keys.
            compression_model: in place of the file's; a `CLaRa` in place of all under
                `compression`.
            dtype: of weights and computation; by the device where None.
        Raises:
            InvalidSettings: an unknown key, with the nearest known one, or a value that cannot be.
        """
        return cls(compression_model, config=read_config(path), dtype=dtype)

    def query(self, question: str, documents: Sequence[str]) -> Answered:
        """Answer a question from documents of any length.

        With an untrained checkpoint scores mean nothing: passages are then ranked by their words
        and the sentence encoder, read as text unless the mode is `latent`, never cut by
        `min_score`, and no answer is refused; a notice says so.

        Args:
            question: with a trained checkpoint at most its `doc_max_length` tokens.
            documents: one or more texts.
        Returns:
            `(response, citations)`, best passage first; no citations where the answer was refused
            or made without the documents.
        Raises:
            InvalidInput: no list of texts, an empty one, or an empty text.
            QuestionTooLong: a question over the limit.
            TextTooLong: the passages leave no room in the base's context.
        """
        asked = checks.text_of(question, "question")
        given = checks.texts(checks.filled(documents, "documents", of="documents"), "documents")
        passages = passages_of(given, self._splitter)
        notices: list[str] = []
        ranked = self._rank(asked, passages, notices)
        why = self._beside(asked, ranked, passages) if ranked else []
        if why is not None:
            return self._answer_without(asked, [*notices, *why])
        return self._answer(asked, ranked, notices)

    def close(self) -> None:
        """Let go of the latents kept, and of the weights unless they were given; safe to repeat."""
        if not self._borrowed:
            self.model.close()
        self._encoder = None
        self._latents.clear()

    def __enter__(self) -> RAGMaster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _rank(self, question: str, passages: Sequence[Passage], notices: list[str]) -> list[Scored]:
        """The passages to read, best first; none where none scores enough."""
        found = self._candidates(question, passages, notices)
        alone = self._by_latents_alone()
        scores = self._scores(question, found) if alone else self._fused(question, found)
        scored = [Scored(*pair) for pair in zip(found, scores, strict=True)]
        best = sorted(scored, key=lambda one: -one.score)[: self.config.reranking.top_k]
        if not alone:
            return best
        least = self.config.guardrails.min_score
        if least is not None and best[0].score < least:
            return []
        read = self.model.models.checkpoint.least_score(self.config.reranking.min_score)
        return [one for one in best if one.score >= read]

    def _beside(
        self, question: str, ranked: Sequence[Scored], passages: Sequence[Passage]
    ) -> list[str] | None:
        """Notices for a refusal where the encoder sees that passages are beside the question."""
        bounds = bounds_of(self.config)
        if not bounds.any or not self.model.models.checkpoint.trained:
            return None
        encoder = self._loaded_encoder()
        if encoder is None:
            return None
        texts = [one.passage.text for one in ranked]
        found = (one.text for one in passages)
        return beside(question, texts, found, encoder, encoder.encoder, bounds)

    def _by_latents_alone(self) -> bool:
        """Unless the checkpoint asks for one voice of three, and no bound for its cosine is set."""
        checkpoint = self.model.models.checkpoint
        bounds = (self.config.reranking.min_score, self.config.guardrails.min_score)
        bounded = any(bound is not None for bound in bounds)
        return checkpoint.trained and (checkpoint.config.latent_weight is None or bounded)

    def _fused(self, question: str, passages: Sequence[Passage]) -> list[float]:
        """By words and encoder; by trained latents too."""
        checkpoint, encoder = self.model.models.checkpoint, self._loaded_encoder()
        if not checkpoint.trained:
            return fused(question, passages, encoder)
        weight = checkpoint.config.latent_weight or LATENT_WEIGHT
        voice = self._scores(question, passages)
        return fused(question, passages, encoder, voice, weight=weight)

    def _candidates(
        self, question: str, passages: Sequence[Passage], notices: list[str]
    ) -> list[Passage]:
        retrieval, encoder = self.config.retrieval, None
        if len(passages) > retrieval.candidates:
            encoder = self._loaded_encoder()
            if encoder is None and retrieval.encoder is not None:
                notices.append(NO_ENCODER)
        return [passages[at] for at in narrow(question, passages, retrieval, encoder)]

    def _scores(self, question: str, passages: Sequence[Passage]) -> list[float]:
        (query,) = self.model.encode_questions([question])
        scores: list[float] = self.model.models.score(query, self._blocks(passages)).tolist()
        return scores

    def _blocks(self, passages: Sequence[Passage]) -> list[Tensor]:
        names = {passage.text: f"documents[{passage.document}]" for passage in passages}
        models = self.model.models
        return self._latents.of(
            [one.text for one in passages],
            lambda missing: compress(models, missing, names, cut=False),
        )

    def _answer_without(self, question: str, notices: list[str]) -> Answered:
        """Nothing scored enough."""
        if not self.config.guardrails.allow_out_of_context:
            return Answered(NOT_IN_DOCUMENTS, [], mode=Mode.TEXT, refused=True, notices=notices)
        text = self._generate(question, [], Mode.TEXT)
        return Answered(text, [], mode=Mode.TEXT, notices=[*notices, WITHOUT_DOCUMENTS])

    def _answer(self, question: str, ranked: Sequence[Scored], notices: list[str]) -> Answered:
        mode, trained = self.config.generation.mode, self.model.models.checkpoint.trained
        if mode is Mode.AUTO:
            mode = self.model.models.checkpoint.auto_mode
        if not trained:
            notices.append(UNTRAINED if mode is Mode.LATENT else UNTRAINED_TEXT)
        passages = [one.passage for one in ranked]
        text = self._generate(question, passages, mode)
        strict = trained and self.config.guardrails.require_citations
        if strict and not is_supported(text, question, passages):
            told = [*notices, UNSUPPORTED]
            return Answered(NOT_IN_DOCUMENTS, [], mode=mode, refused=True, notices=told)
        citations = [citation(at, one, text, question) for at, one in enumerate(ranked, start=1)]
        return Answered(text, citations, mode=mode, notices=notices)

    def _generate(self, question: str, passages: Sequence[Passage], mode: Mode) -> str:
        generator, most = self.model.models.generator, self.config.generation.max_new_tokens
        if mode is Mode.LATENT:
            blocks = self._blocks(passages)
            found = generator.answer_from_latents(
                question, blocks, max_new_tokens=most, sampling=self._sampling
            )
        else:
            texts = [passage.text for passage in passages]
            found = generator.answer_from_text(
                question, texts, max_new_tokens=most, sampling=self._sampling
            )
        return found.text

    def _loaded_encoder(self) -> KeptVectors | None:
        """The sentence encoder, loaded when first needed; None where there is none."""
        named: str | Path | None = self.config.retrieval.encoder
        if named == DEFAULT:
            named = installed_encoder()
        if self._encoder is None and named is not None:
            from clara.answerability.encoder import open_encoder

            own = self.config.retrieval.encoder == DEFAULT
            adapter = installed_answerability() if own else None
            opened = open_encoder(named, adapter, device=str(self.model.models.device))
            self._encoder = KeptVectors(opened, self._cache_bytes)
        return self._encoder


def _open(config: RagConfig, dtype: torch.dtype | None) -> CLaRa:
    wanted = config.compression
    if wanted.model == DEFAULT:
        models = installed_models(
            base=wanted.base,
            rate=wanted.rate,
            doc_max_length=wanted.doc_max_length,
            device=wanted.device,
            dtype=dtype,
        )
    else:
        models = open_models(
            wanted.model, base=wanted.base, rate=wanted.rate, device=wanted.device, dtype=dtype
        )
    length = models.checkpoint.config.doc_max_length
    if wanted.doc_max_length not in (None, length):
        raise InvalidSettings(
            f"rag_master.compression.doc_max_length is {wanted.doc_max_length}; "
            f"{models.checkpoint.name} was trained for {length}",
            field="rag_master.compression.doc_max_length",
            limit=length,
            remedy=f"Set it to {length}, or leave it out",
        )
    return CLaRa(models)


def _check_rate(model: CLaRa, rate: int | None) -> None:
    checkpoint = model.models.checkpoint
    if rate is not None and checkpoint.at_rate(rate).config != checkpoint.config:
        raise InvalidInput(
            f"the model given was loaded at rate {checkpoint.config.compr_rate}, not {rate}",
            field="compression_rate",
            remedy=f"Load it with rate={rate}",
        )
