"""Bodies are read strictly: the right media type, UTF-8, and JSON as RFC 8259 has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute

from api.errors import MalformedBody, UnsupportedContentType
from clara.errors import InvalidText
from clara.texts import printable

MAX_MEMBERS = 64
"""Members of one JSON object, twice what the largest of ours may have: bounds what is reported."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route that refuses a body FastAPI would read as something else."""

    def get_route_handler(self) -> Handler:
        """What runs for a request."""
        inner = super().get_route_handler()
        if self.body_field is None:
            return inner
        if isinstance(self.body_field.field_info, Form):
            return _form(inner)
        return _json(inner)


def _form(inner: Handler) -> Handler:
    async def handler(request: Request) -> Response:
        _require(request, "multipart/form-data")
        return await inner(request)

    return handler


def _json(inner: Handler) -> Handler:
    async def handler(request: Request) -> Response:
        _require(request, "application/json")
        body = await request.body()
        return await inner(_Parsed(request, body, parse(body)))

    return handler


class _Parsed(Request):
    """A request whose body is read and parsed already."""

    def __init__(self, request: Request, body: bytes, value: object) -> None:
        super().__init__(request.scope, request.receive)
        self.bytes = body
        self.value = value

    async def body(self) -> bytes:
        return self.bytes

    async def json(self) -> Any:
        return self.value


def parse(body: bytes) -> Any:
    """A JSON text.

    Raises:
        InvalidText: not UTF-8.
        MalformedBody: not JSON, nested too deep, a member twice in one object, or too many.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"the body is not UTF-8: byte 0x{body[error.start]:02X} at offset {error.start}",
            field="",
            remedy="Encode the body as UTF-8.",
        ) from error
    try:
        return json.loads(
            text.removeprefix("\ufeff"), parse_constant=_no_constant, object_pairs_hook=_object
        )
    except RecursionError:
        raise _malformed("it is nested too deep", "Send a flatter body.") from None
    except ValueError as error:  # JSONDecodeError, or a number of more digits than Python reads
        raise _malformed(str(error), "Send one valid JSON text.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise MalformedBody(
            f"an object in the body has {len(pairs):,} members; the limit is {MAX_MEMBERS}",
            field="",
            limit=MAX_MEMBERS,
            remedy="Send fewer members.",
        )
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _malformed("an object names a member twice", "Name each member once.")
    return members


def _no_constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is not a JSON number", "Send a finite number, or leave it out.")


def _malformed(what: str, remedy: str) -> MalformedBody:
    return MalformedBody(f"the body is not JSON: {what}", field="", remedy=remedy)


def _require(request: Request, expected: str) -> None:
    given = request.headers.get("content-type", "")
    if given == expected:
        return
    header = Message()
    header["content-type"] = given or "none/none"
    charset = str(header.get_param("charset", "utf-8")).lower()
    if header.get_content_type() == expected and charset in ("utf-8", "utf8", "us-ascii"):
        return
    raise UnsupportedContentType(
        f"the content type is {printable(given)[:100]!r}; this route reads {expected}",
        field="Content-Type",
        limit=expected,
        remedy=f"Send the body as {expected}, in UTF-8.",
    )
