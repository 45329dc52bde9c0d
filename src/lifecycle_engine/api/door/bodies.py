"""The bodies of requests, read only once it is known who asks, and never further than they may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope

from lifecycle_engine.api.door.encodings import ENCODINGS, TooLongError, inflate
from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.log.message import InvalidMessageError, check_json

Body = TypeVar("Body", bound=BaseModel)

JSON = "application/json"
_READ_ON_BYTES = 64 * 1024 * 1024
"""How much of a body that is too long is read and thrown away, so that whoever sends it gets to hear the answer."""


async def read_json(scope: Scope, receive: Receive, limit: int, what: str) -> bytes:
    """A body of JSON that has at most `limit` bytes. Raises ProblemError 400, 413, 415."""
    media_type_of(scope, (JSON,))
    return await read_body(scope, receive, limit, what)


def media_type_of(scope: Scope, media_types: Sequence[str]) -> str:
    """Which of these, all of them text in UTF-8, a request's body is said to be. Raises ProblemError 415."""
    said = [value for name, value in scope["headers"] if name == b"content-type"]
    content_type = b", ".join(said) if said else None
    if content_type == b"application/json" and JSON in media_types:
        return JSON
    media_type, _, parameters = (content_type or b"").lower().partition(b";")
    charset = parameters.partition(b"charset=")[2].split(b";")[0].strip(b' "')
    named = media_type.strip().decode("latin-1")
    if named in media_types and charset in (b"", b"utf-8", b"utf8", b"us-ascii"):
        return named
    given = "absent" if content_type is None else repr(content_type.decode("latin-1")[:80])
    expected = f"{', '.join(media_types[:-1])} or {media_types[-1]}" if len(media_types) > 1 else media_types[0]
    raise ProblemError(415, "unsupported_media_type", f"the Content-Type is {given}; send {expected}, in UTF-8")


async def read_object(request: Request, model: type[Body], limit: int, what: str) -> Body:
    """A body of JSON that has at most `limit` bytes and the shape of a model. Raises ProblemError 400, 413, 415.

    For routes that a key opens: a parameter of theirs FastAPI would read, however long, before it is known who asks.
    Raises RequestValidationError.
    """
    body = await read_json(request.scope, request.receive, limit, what)
    try:
        # First, since the model takes what isn't finite, and what that becomes on the way has another meaning.
        check_json(body, unique=True)
    except InvalidMessageError as error:
        status = 400 if error.code == "malformed" else 422
        raise ProblemError(status, error.code, str(error), more={"pointer": error.pointer}) from None
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in mistakes]) from None


def described(model: type[BaseModel]) -> dict[str, Any]:
    """What FastAPI is told of a body that `read_object` reads."""
    schema = model.model_json_schema()
    content = {"application/json": {"schema": _inlined(schema, schema.pop("$defs", {}))}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema without references, which would point into the body's own and not into the whole document."""
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in definitions:
        return _inlined(definitions[name], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}


async def read_body(scope: Scope, receive: Receive, limit: int, what: str) -> bytes:
    """A body that has at most `limit` bytes, both as it was sent and once its content encoding is undone.

    `what` says what it holds. Raises ProblemError 400, 413, 415.
    """
    encoding = ""
    for name, value in scope["headers"]:
        if name == b"content-encoding":
            encoding = f"{encoding}, {value.decode('latin-1')}" if encoding else value.decode("latin-1")
    encoding = encoding.strip().lower()
    if encoding and encoding not in ENCODINGS:
        detail = f"the Content-Encoding is {encoding[:80]!r}; send one of {', '.join(ENCODINGS)}, or none"
        raise ProblemError(415, "unsupported_encoding", detail, headers={"Accept-Encoding": ", ".join(ENCODINGS)})
    body = await read_sent_body(scope, receive, limit, what)
    if not encoding:
        return body
    try:
        return inflate(encoding, body, limit)
    except TooLongError:
        raise _too_large(limit, what) from None
    except ValueError as error:
        raise ProblemError(400, "malformed", f"the body is not {encoding}: {error}") from None


async def read_sent_body(scope: Scope, receive: Receive, limit: int, what: str) -> bytes:
    """A body that has at most `limit` bytes, as it was sent. Raises ProblemError 400, 413."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or len(value) > 18 or int(value) > _READ_ON_BYTES):
            raise _too_large(limit, what)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ProblemError(400, "disconnected", "the body was not sent to its end")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        if not message.get("more_body") or size > _READ_ON_BYTES:
            break
    if size > limit:
        raise _too_large(limit, what)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int, what: str) -> ProblemError:
    size = f"{limit // 1024**2} MiB" if limit >= 1024**2 else f"{limit // 1024} KiB"
    return ProblemError(413, "too_large", f"{what} has at most {size}", headers={"Connection": "close"})
