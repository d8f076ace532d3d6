"""Every error becomes an RFC 9457 problem: one table says with which status."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import sqlalchemy.exc
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.validation import faults_of
from clara import errors
from clara.errors import ClaraError, DatabaseUnavailable, InvalidInput
from clara.texts import printable

log = logging.getLogger(__name__)


class MalformedBody(InvalidInput):
    """A body that cannot be read as what it says it is."""


class UnsupportedContentType(InvalidInput):
    """A body of a media type the route does not read."""


class UnknownRoute(InvalidInput):
    """Nothing answers at that path."""


class MethodNotAllowed(InvalidInput):
    """The path exists, for other methods."""


class RunNotCancellable(InvalidInput):
    """A run that has started, has ended, or must be done."""


class TrainingNotBegun(InvalidInput):
    """A training that has no curves yet."""


class Unexpected(ClaraError):
    """A fault of this program."""


class Faults(ClaraError):
    """Several faults of one request; the first one speaks for all."""

    def __init__(self, faults: Sequence[ClaraError]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


STATUS: dict[type[ClaraError], int] = {
    ClaraError: 500,
    InvalidInput: 422,
    MalformedBody: 400,
    UnknownRoute: 404,
    MethodNotAllowed: 405,
    UnsupportedContentType: 415,
    RunNotCancellable: 409,
    TrainingNotBegun: 409,
    errors.RunNotRetryable: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedFile: 415,
    errors.UnknownCollection: 404,
    errors.UnknownDocument: 404,
    errors.UnknownQuestion: 404,
    errors.UnknownRun: 404,
    errors.UnknownCheckpoint: 404,
    errors.UnknownGeneration: 404,
    errors.UnknownNight: 404,
    errors.GenerationRefused: 409,
    errors.RecompressionBusy: 409,
    errors.DuplicateCollection: 409,
    errors.PromotionRefused: 409,
    errors.LatentsNotReady: 409,
    errors.Cancelled: 409,
    errors.DatabaseUnavailable: 503,
    errors.DiskFull: 503,
    errors.BrokerUnavailable: 503,
    errors.IndexUnavailable: 503,
    errors.EngineClosed: 503,
    errors.TrainingBusy: 503,
    errors.TrainingKilled: 503,
}
"""A class not listed has the status of its nearest base."""

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5


def status_of(error: ClaraError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Faults):
        return status_of(error.faults[0])
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def raise_all(faults: Sequence[ClaraError]) -> None:
    """Raise nothing, the only fault, or all of them as one."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise Faults(faults)


class ProblemResponse(JSONResponse):
    """`application/problem+json`, in ASCII: an escape can name what UTF-8 cannot encode."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False).encode("ascii")


def problem(
    error: ClaraError, path: str, *, headers: dict[str, str] | None = None, **more: Any
) -> ProblemResponse:
    """The response to an error.

    Args:
        error: what happened.
        path: of the request.
        headers: to send with it.
        more: members only this problem has.
    """
    faults = error.faults if isinstance(error, Faults) else [error]
    status = status_of(faults[0])
    body = _members(faults[0]) | {"status": status, "instance": printable(path)} | more
    if len(faults) > 1:
        body["errors"] = [_members(fault) for fault in faults]
    headers = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return ProblemResponse(body, status_code=status, headers=headers)


def _members(error: ClaraError) -> dict[str, Any]:
    members: dict[str, Any] = {
        "type": f"urn:clara:problem:{error.code}",
        "title": error.code.replace("-", " ").capitalize(),
        "detail": printable(error.message),
        "field": error.field if error.field is None else printable(error.field),
        "limit": error.limit,
        "remedy": error.remedy if error.remedy is None else printable(error.remedy),
    }
    return {name: value for name, value in members.items() if value is not None}


def install(app: FastAPI) -> None:
    """Answer every exception of this app with a problem."""
    app.add_exception_handler(ClaraError, _clara_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    for kind in (
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
        sqlalchemy.exc.TimeoutError,
    ):
        app.add_exception_handler(kind, _database_error)
    app.add_exception_handler(Exception, _unexpected)


async def _clara_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ClaraError)  # noqa: S101 - for the type checker
    if status_of(error) == HTTPStatus.INTERNAL_SERVER_ERROR:  # no words of it are for a client
        return await _unexpected(request, error)
    return problem(error, request.url.path)


async def _validation_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
    return problem(Faults(faults_of(error)), request.url.path)


async def _http_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    path, method = request.url.path, request.method
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        found: ClaraError = UnknownRoute(
            f"nothing answers at {path}", remedy="Look at /docs for the addresses there are."
        )
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        found = MethodNotAllowed(
            f"{path} does not answer {method}",
            limit=headers.get("Allow"),
            remedy="Use one of the methods that the Allow header names.",
        )
    else:
        found = MalformedBody(
            str(error.detail).rstrip("."), remedy="Send the body in the form its type says."
        )
    return problem(found, path, headers=headers)


async def _database_error(request: Request, error: Exception) -> ProblemResponse:
    log.warning("the database did not answer %s: %s", request.url.path, error)
    return problem(database_unavailable(), request.url.path)


def database_unavailable() -> DatabaseUnavailable:
    """What a client is told, without the server's address."""
    return DatabaseUnavailable("the database does not answer", remedy="Try again in a moment.")


async def _unexpected(request: Request, error: Exception) -> ProblemResponse:
    error_id = str(uuid4())
    log.error("error %s at %s", error_id, request.url.path, exc_info=error)
    told = Unexpected(
        "an unexpected error, which is in the log under the id of this problem",
        remedy="Tell whoever runs this server the id.",
    )
    return problem(told, request.url.path, id=error_id)
