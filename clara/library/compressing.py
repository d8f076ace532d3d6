"""Documents -> passages with their latents, every different text compressed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from torch import Tensor

from clara.errors import EmptyText, InvalidCheckpoint, InvalidInput, InvalidText, TextTooLong
from clara.library.checks import LongDocuments
from clara.model.models import Models
from clara.model.tokens import Tokens
from clara.passages import FastTokenizer
from clara.pipeline.reading import split_document
from clara.types import PassageSpan


@dataclass(frozen=True)
class Block:
    """One passage's latent, and where it is from."""

    document: int
    """Position of its document in the list it was given in."""
    latent: Tensor
    """(rows, width)."""


class Splitter:
    """Cuts documents into passages that one compressor pass takes, by the checkpoint's tokenizer.

    Raises:
        InvalidCheckpoint: the tokenizer does not say where in a text its tokens lie.
    """

    def __init__(self, tokens: Tokens) -> None:
        backend = getattr(tokens.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise InvalidCheckpoint(
                "the tokenizer of the base does not say where its tokens lie, so no document "
                "can be split by it",
                field="tokenizer.json",
                remedy="Use a base with a tokenizer.json",
            )
        self._tokens = tokens
        self._fast = FastTokenizer(Tokenizer.from_str(backend.to_str()))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters `[start, end)` of each token."""
        return self._fast.offsets(text)

    def count(self, text: str) -> int:
        """Tokens of a text as the compressor counts them."""
        return self._tokens.count([text])[0]

    def split(self, text: str) -> list[PassageSpan]:
        """Passages of a document; none where it is white space only.

        Raises:
            InvalidInput: a single character takes more tokens than one pass.
        """
        return split_document("", text, self, max_tokens=self._tokens.doc_max_length)


def compressed(
    models: Models,
    documents: Sequence[Sequence[str]],
    long_documents: LongDocuments,
    names: Mapping[str, str] | None = None,
) -> list[list[Block]]:
    """The passages of each list of documents, in order.

    Args:
        models: one checkpoint.
        documents: a list per question, as checked by `checks.documents_of`.
        long_documents: what becomes of those over the limit.
        names: what errors call each text; its place in `documents` where None.
    Raises:
        TextTooLong: a document over the limit, where that is an error.
        InvalidText: a document makes a control token of the model.
    """
    names = _names(documents) if names is None else names
    passages = _passages(models, names, long_documents)
    different = list(dict.fromkeys(text for texts in passages.values() for text in texts))
    cut = long_documents is LongDocuments.CUT
    latents = dict(zip(different, compress(models, different, names, cut=cut), strict=True))
    return [
        [
            Block(position, latents[text])
            for position, document in enumerate(part)
            for text in passages[document]
        ]
        for part in documents
    ]


def compress(
    models: Models, texts: Sequence[str], names: Mapping[str, str], *, cut: bool
) -> list[Tensor]:
    """One latent per text; an error names the text as its caller knows it.

    Args:
        models: one checkpoint.
        texts: passages.
        names: where a text is from, such as `documents[0][3]`.
        cut: read only the beginning of a long text.
    """
    try:
        return models.compressor.compress(texts, cut=cut)
    except (EmptyText, InvalidText, TextTooLong) as error:
        position = int((error.field or "/0").removeprefix("/"))
        name = names.get(texts[position], f"text {position}")
        raise type(error)(
            error.message.replace(f"text {position}", name, 1),
            field=name,
            limit=error.limit,
            remedy=_remedy(error),
        ) from error


def _remedy(error: InvalidInput) -> str | None:
    if isinstance(error, TextTooLong):
        return 'Split it into passages, or choose long_documents="split"'
    return error.remedy


def names_of(texts: Sequence[str], name: str) -> dict[str, str]:
    """Where in one list each different text is found first."""
    names: dict[str, str] = {}
    for position, text in enumerate(texts):
        names.setdefault(text, f"{name}[{position}]")
    return names


def _names(documents: Sequence[Sequence[str]]) -> dict[str, str]:
    """Where each different text is found first."""
    names: dict[str, str] = {}
    for row, part in enumerate(documents):
        names = names_of(part, f"documents[{row}]") | names
    return names


def _passages(
    models: Models, texts: Iterable[str], long_documents: LongDocuments
) -> dict[str, list[str]]:
    """Passages by document: itself, unless it is over the limit and may be split."""
    different = list(texts)
    if long_documents is not LongDocuments.SPLIT:
        return {text: [text] for text in different}
    counts = models.tokens.count(different)
    splitter = Splitter(models.tokens)
    return {
        text: [text]
        if count <= models.tokens.doc_max_length
        else [text[span.start : span.end] for span in splitter.split(text)]
        for text, count in zip(different, counts, strict=True)
    }
