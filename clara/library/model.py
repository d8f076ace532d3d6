"""`CLaRa`: one checkpoint with the calls of the published model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from clara.errors import InvalidInput, ModelMissing
from clara.library import checks
from clara.library.answering import OnToken, answers, check_room
from clara.library.checks import LongDocuments
from clara.library.choosing import best
from clara.library.compressing import Block, Splitter, compress, compressed, names_of
from clara.library.loading import dtype_of, open_models
from clara.library.prompting import instructions, latents_of, paraphrase
from clara.model.checkpoint import untrained
from clara.model.decoding import Lowered
from clara.model.models import Models, load_models
from clara.types import PassageSpan

MAX_NEW_TOKENS = 128
"""As published."""


class CLaRa:
    """Compresses documents, chooses among them and answers, in the calling thread. Greedy.

    For one thread at a time. Importing and loading change nothing outside the object: no
    environment, no thread settings, no random state. As a context manager it lets go of the
    weights at the end.

    Args:
        models: a loaded checkpoint; `from_pretrained` loads one.
    """

    def __init__(self, models: Models) -> None:
        self._models: Models | None = models

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        subfolder: str | None = None,
        device: str = "auto",
        dtype: torch.dtype | str | None = None,
        base: str | Path | None = None,
        rate: int | None = None,
        revision: str | None = None,
        cache: Path | None = None,
    ) -> CLaRa:
        """Load a checkpoint in the published form or our own.

        Args:
            path_or_id: folder, or name on the Hub.
            subfolder: of that, such as `compression-16`. Without one, and where `path_or_id` is no
                checkpoint itself, `rate` chooses `compression-<rate>`.
            device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU there is.
            dtype: of weights and computation, as torch's or by name; by the device where None.
            base: folder or Hub name of the base model, where the one the checkpoint names is not
                to be found.
            rate: tokens per row of a latent; must be one the checkpoint was trained for. None
                takes the checkpoint's own.
            revision: branch, tag or commit on the Hub.
            cache: folder that remembers hashes of large files, for a faster start.
        Raises:
            ModelMissing: no such folder or Hub name, or no base to be found.
            InvalidCheckpoint: incomplete, damaged or unsafe files, a rate that is not at hand, or
                weights that do not fit the base.
            CheckpointMismatch: the base is not the one these weights were trained on.
        """
        return cls(
            open_models(
                path_or_id,
                subfolder=subfolder,
                device=device,
                dtype=dtype,
                base=base,
                rate=rate,
                revision=revision,
                cache=cache,
            )
        )

    @classmethod
    def untrained(
        cls,
        base: str | Path,
        *,
        rate: int = 16,
        doc_max_length: int = 256,
        device: str = "auto",
        dtype: torch.dtype | str | None = None,
    ) -> CLaRa:
        """A base model without a checkpoint: latents of the right shape that carry no meaning."""
        fresh = untrained(base, compr_rate=rate, doc_max_length=doc_max_length)
        return cls(load_models(fresh, device=device, dtype=dtype_of(dtype)))

    @property
    def models(self) -> Models:
        """The roles of the checkpoint. Raises ModelMissing after `close`."""
        if self._models is None:
            raise ModelMissing("this model was closed", remedy="Load it again")
        return self._models

    def generate_from_paraphrase(
        self,
        questions: Sequence[str] | None,
        documents: Sequence[Sequence[str]],
        max_new_tokens: int = MAX_NEW_TOKENS,
        *,
        instruction: int | None = 0,
        seed: int = 0,
        long_documents: LongDocuments | str = LongDocuments.ERROR,
        on_token: OnToken | None = None,
    ) -> list[str]:
        """Say what the latents of each list of documents say, in other words.

        Args:
            questions: not read; None, or one per list of documents, such as "".
            documents: a list per answer.
            max_new_tokens: most tokens per answer.
            instruction: which of the 13 published instructions; None draws one per answer.
            seed: of those draws.
            long_documents: `error`, `split` or `cut`.
            on_token: told the position of an answer and each new piece of it.
        Returns:
            One answer per list, as decoded: leading white space stays.
        Raises:
            InvalidInput: lists of the wrong depth, length or content; the message names the place.
            TextTooLong: a document over the limit, or a prompt over the base's context.
        """
        given = checks.documents_of(documents)
        asked = [""] * len(given) if questions is None else questions
        checks.paired(checks.listed(asked, "questions", of="questions"), given, "documents")
        drawn = instructions(instruction, seed, len(given))
        read = _latents(compressed(self.models, given, checks.choice(long_documents)))
        prompts = [paraphrase(self.models, *pair) for pair in zip(read, drawn, strict=True)]
        return self._answers(prompts, max_new_tokens, on_token)

    def generate_from_text(
        self,
        questions: Sequence[str],
        documents: Sequence[Sequence[str]],
        max_new_tokens: int = MAX_NEW_TOKENS,
        *,
        long_documents: LongDocuments | str = LongDocuments.ERROR,
        on_token: OnToken | None = None,
    ) -> list[str]:
        """Answer each question from the latents of all its documents, in the order given.

        Arguments, result and errors as in `generate_from_paraphrase`; `questions` are read.
        """
        asked, given = checks.texts(questions, "questions"), checks.documents_of(documents)
        checks.paired(asked, given, "documents")
        blocks = compressed(self.models, given, checks.choice(long_documents))
        read = _latents(blocks)
        return self.generate_from_latents(asked, read, max_new_tokens, on_token=on_token)

    def generate_from_questions(
        self,
        questions: Sequence[str],
        documents: Sequence[Sequence[str]],
        max_new_tokens: int = MAX_NEW_TOKENS,
        *,
        generation_top_k: int | None = None,
        long_documents: LongDocuments | str = LongDocuments.ERROR,
        on_token: OnToken | None = None,
    ) -> tuple[list[str], list[list[int]]]:
        """Choose the best documents for each question and answer from them, best first.

        Args:
            questions: each with as many candidates as it has; the numbers may differ.
            documents: candidates per question.
            max_new_tokens: most tokens per answer.
            generation_top_k: passages read per question, in this call; the checkpoint's own number
                where None; all of them where there are fewer.
            long_documents: `error`, `split` or `cut`. What is split is chosen passage by passage.
            on_token: told the position of an answer and each new piece of it.
        Returns:
            answers as in `generate_from_paraphrase`, and per question the positions of the chosen
            documents, best first; a document of several chosen passages counts once.
        Raises:
            QuestionTooLong: a question over the checkpoint's `doc_max_length`.
            InvalidInput, TextTooLong: as in `generate_from_paraphrase`.
        """
        asked, given = checks.texts(questions, "questions"), checks.documents_of(documents)
        checks.paired(asked, given, "documents")
        blocks = compressed(self.models, given, checks.choice(long_documents))
        chosen = best(self.models, asked, blocks, generation_top_k)
        read = _latents(chosen)
        found = self.generate_from_latents(asked, read, max_new_tokens, on_token=on_token)
        return found, [list(dict.fromkeys(block.document for block in row)) for row in chosen]

    def generate_from_latents(
        self,
        questions: Sequence[str],
        latents: Sequence[Sequence[Tensor]],
        max_new_tokens: int = MAX_NEW_TOKENS,
        *,
        on_token: OnToken | None = None,
    ) -> list[str]:
        """Answer each question from latents that were made before, best first.

        Args:
            questions: any texts.
            latents: per question, of `compress_documents` by this checkpoint.
            max_new_tokens: most tokens per answer.
            on_token: told the position of an answer and each new piece of it.
        Raises:
            CheckpointMismatch: a latent has another shape than this checkpoint makes.
            InvalidInput, TextTooLong: as in `generate_from_paraphrase`.
        """
        asked = checks.texts(questions, "questions")
        given = [
            latents_of(part, f"latents[{position}]")
            for position, part in enumerate(
                checks.listed(latents, "latents", of="lists of latents")
            )
        ]
        checks.paired(asked, given, "latents")
        generator = self.models.generator
        prompts = [generator.prompt_from_latents(*pair) for pair in zip(asked, given, strict=True)]
        return self._answers(prompts, max_new_tokens, on_token, generator.hesitant.from_latents)

    def stream(
        self,
        question: str,
        documents: Sequence[str] | None = None,
        *,
        latents: Sequence[Tensor] | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        generation_top_k: int | None = None,
        long_documents: LongDocuments | str = LongDocuments.ERROR,
    ) -> Iterator[str]:
        """One answer piece by piece: the model computes while the caller asks for the next one.

        Documents are compressed, and everything is checked, before this returns. Joined, the
        pieces are the answer of the call that does the same at once.

        Args:
            question: any text.
            documents: what to read; or
            latents: of documents compressed before.
            max_new_tokens: most tokens of the answer.
            generation_top_k: read only as many of the documents, the best first, as
                `generate_from_questions` does; None reads all of them, as `generate_from_text`.
            long_documents: `error`, `split` or `cut`.
        Raises:
            InvalidInput: both or neither of `documents` and `latents`, or what the other calls
                refuse.
        """
        if (documents is None) == (latents is None):
            both = "neither documents nor latents" if latents is None else "documents and latents"
            raise InvalidInput(f"{both} were given; one of them is due", field="documents")
        asked = checks.text_of(question, "question")
        most = checks.count(max_new_tokens, "max_new_tokens")
        if latents is None:
            choice = checks.choice(long_documents)
            read = self._read(asked, documents, generation_top_k, choice)
        else:
            read = latents_of(latents, "latents")
        generator = self.models.generator
        prompt = generator.prompt_from_latents(asked, read)
        check_room(generator, prompt, "question")
        lowered = generator.hesitant.from_latents
        return generator.stream(prompt, max_new_tokens=most, lowered=lowered)

    def compress_documents(
        self,
        documents: Sequence[str],
        *,
        long_documents: LongDocuments | str = LongDocuments.ERROR,
    ) -> list[Tensor]:
        """One latent (rows, width) per document, in their order, in the model's dtype on the CPU.

        Memory-token checkpoints give `n_mem` rows to every document; pooled ones give fewer to
        short ones. Equal documents are compressed once.

        Args:
            documents: texts of at most `doc_max_length` tokens.
            long_documents: `error` or `cut`; passages of `split_document` have a latent each.
        Raises:
            TextTooLong: a document over the limit, where that is an error.
            InvalidInput: something else than a list of texts.
        """
        given = checks.texts(documents, "documents")
        choice = checks.choice(long_documents)
        if choice is LongDocuments.SPLIT:
            raise InvalidInput(
                'long_documents is "split", but each document has one latent here',
                field="long_documents",
                remedy="Compress the passages of split_document",
            )
        names = names_of(given, "documents")
        found = compress(self.models, list(names), names, cut=choice is LongDocuments.CUT)
        by_text = dict(zip(names, found, strict=True))
        return [by_text[text] for text in given]

    def split_document(self, document: str) -> list[PassageSpan]:
        """Passages of a document of any length, each short enough for one latent.

        Raises:
            InvalidInput: no text, or a character that takes more tokens than one passage.
        """
        return Splitter(self.models.tokens).split(checks.text_of(document, "document"))

    def encode_questions(self, questions: Sequence[str]) -> list[Tensor]:
        """One query latent (rows, width) per question, float32 on the CPU.

        `models.score` compares it with the latents of documents.

        Raises:
            QuestionTooLong: a question over the checkpoint's `doc_max_length`.
            InvalidInput: something else than a list of texts.
        """
        return self.models.reasoner.encode(checks.texts(questions, "questions"))

    def close(self) -> None:
        """Let go of the weights; safe to call twice."""
        self._models = None

    def __enter__(self) -> CLaRa:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(
        self, question: str, documents: object, top_k: int | None, choice: LongDocuments
    ) -> list[Tensor]:
        """Latents of one question's documents: all of them, or the best `top_k`."""
        given = checks.texts(checks.filled(documents, "documents", of="documents"), "documents")
        names = names_of(given, "documents")
        blocks = compressed(self.models, [given], choice, names)
        chosen = blocks if top_k is None else best(self.models, [question], blocks, top_k)
        return _latents(chosen)[0]

    def _answers(
        self,
        prompts: Sequence[Tensor],
        max_new_tokens: int,
        on_token: OnToken | None,
        lowered: Lowered | None = None,
    ) -> list[str]:
        most = checks.count(max_new_tokens, "max_new_tokens")
        return answers(
            self.models, prompts, max_new_tokens=most, on_token=on_token, lowered=lowered
        )


def _latents(chosen: Sequence[Sequence[Block]]) -> list[list[Tensor]]:
    return [[block.latent for block in blocks] for blocks in chosen]
