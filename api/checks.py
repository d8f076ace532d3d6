"""Checks of what pydantic cannot say: characters, limits that are settings, metadata values."""

from __future__ import annotations

from collections.abc import Iterable

from api.checks_of_values import check_key, check_value
from api.errors import raise_all
from api.schemas import NewDocument, NewDocuments
from api.validation import MAX_FAULTS, pointer
from clara.errors import ClaraError, InvalidInput, QuestionTooLong, TooManyDocuments
from clara.settings import Settings
from clara.texts import check_characters, check_length, check_text
from clara.types import SourceDocument

BYTES_PER_TOKEN = 8
"""A token stands for at least one byte, and for some four on average. A question of more bytes than
this per token allowed is refused here; the worker counts the tokens of the others."""


def documents(body: NewDocuments, config: Settings) -> list[SourceDocument]:
    """The documents of a request.

    Raises:
        TooManyDocuments: over the setting.
        ClaraError: the fault of a document, or several faults.
    """
    check_count(len(body.documents), "documents", config)
    checked: list[SourceDocument] = []
    faults: list[ClaraError] = []
    for index, document in enumerate(body.documents):
        try:
            checked.append(_document(document, f"/documents/{index}", config.max_document_chars))
        except InvalidInput as fault:
            faults.append(fault)
    raise_all(faults[:MAX_FAULTS])
    return checked


def check_count(count: int, what: str, config: Settings) -> None:
    """Raise TooManyDocuments over the setting."""
    if count > config.max_documents_per_request:
        raise TooManyDocuments(
            f"{count:,} {what} in one request; the limit is {config.max_documents_per_request:,}",
            field=f"/{what}",
            limit=config.max_documents_per_request,
            remedy="Send them in several requests.",
        )


def question(given: str, config: Settings) -> str:
    """The text of a question.

    Raises:
        QuestionTooLong: over the limit in characters, or so many bytes that it must be.
        EmptyText, InvalidText: as `check_text`.
    """
    field, limit = "/question", config.max_question_chars
    if len(given) > limit:
        raise _too_long(f"{len(given):,} characters; the limit is {limit:,}", limit)
    text = check_text(given, field=field, max_chars=limit)
    size, limit = len(text.encode()), BYTES_PER_TOKEN * config.max_question_tokens
    if size > limit:
        raise _too_long(f"{size:,} bytes in UTF-8; the limit is {limit:,}", limit)
    return text


def _too_long(size: str, limit: int) -> QuestionTooLong:
    return QuestionTooLong(
        f"/question has {size}",
        field="/question",
        limit=limit,
        remedy="Ask a shorter question; long texts belong into documents.",
    )


def name(text: str | None, field: str, max_chars: int) -> str | None:
    """A title, an id, a source: any characters that can be stored."""
    if text is not None:
        check_length(text, field=field, max_chars=max_chars)
        check_characters(text, field=field)
    return text


def _document(document: NewDocument, at: str, max_chars: int) -> SourceDocument:
    for part in ("title", "source"):
        check_characters(getattr(document, part) or "", field=f"{at}/{part}")
    if document.external_id is not None:
        check_text(document.external_id, field=f"{at}/external_id", max_chars=1000)
    _check_metadata(document.metadata.items(), f"{at}/metadata")
    return SourceDocument(
        text=check_text(document.text, field=f"{at}/text", max_chars=max_chars),
        title=document.title,
        external_id=document.external_id,
        source=document.source,
        metadata=document.metadata,
    )


def _check_metadata(entries: Iterable[tuple[str, object]], at: str) -> None:
    for key, value in entries:
        field = at + pointer([key])
        check_key(key, field)
        check_value(value, field)
