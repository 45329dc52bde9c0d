"""Errors as `application/problem+json` (RFC 9457), with `code`, `message` and `request_id` beside the standard members.

Every error of the HTTP side leaves through this module; nothing else chooses a status.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifecycle_engine.log.port import LogUnavailableError
from lifecycle_engine.store.database import is_transient

MEDIA_TYPE = "application/problem+json"
_LONGEST_DETAIL = 2000
_LONGEST_INSTANCE = 1000
_REQUEST_ID = re.compile(rb"[!-~]{1,128}").fullmatch

logger = logging.getLogger(__name__)


class ProblemError(Exception):
    """An error that the caller is told of: what is wrong, where, and what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
        type: str = "about:blank",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = dict(more or {})
        self.type = type


class Problem(BaseModel):
    """What every error looks like."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no customer 'ada'"])
    instance: str = Field(examples=["/v1/customers/ada"])
    code: str = Field(examples=["customer_not_found"])
    message: str = Field(examples=["there is no customer 'ada'"])
    request_id: str = Field(examples=["3f1c2b9f6d1e40958d20a7867000c1f2"])


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route declares, for OpenAPI."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "model": Problem,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def problem_response(request: Request, error: ProblemError) -> Response:
    """The answer to a request that has failed in this way."""
    body = _body(error, request.url.path, request.scope.get("request_id", ""))
    return Response(body, error.status, error.headers, MEDIA_TYPE)


def unread_request_response(error: ProblemError) -> bytes:
    """The whole answer, after which the connection is closed, where no request could be read."""
    request_id = _new_request_id()
    body = _body(error, "", request_id)
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nrequest-id: {request_id}\r\nconnection: close\r\n"
        f"{''.join(f'{name}: {value}{chr(13)}{chr(10)}' for name, value in error.headers.items())}\r\n"
    )
    return head.encode() + body


def _body(error: ProblemError, instance: str, request_id: str) -> bytes:
    # What was sent is quoted in both, however long it was.
    detail = _cut(error.detail, _LONGEST_DETAIL)
    return msgspec.json.encode(
        {
            **error.more,
            "type": error.type,
            "title": HTTPStatus(error.status).phrase,
            "status": error.status,
            "detail": detail,
            "instance": _cut(instance, _LONGEST_INSTANCE),
            "code": error.code,
            "message": detail,
            "request_id": request_id,
        }
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _new_request_id() -> str:
    # A secret it is not, and asking the system for each would cost more.
    return f"{random.getrandbits(128):032x}"


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem, and gives each request an id."""
    # These two the framework would answer itself; everything else comes to the middleware.
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_middleware(Requests)


class Requests:
    """Gives each request an id, the caller's `Request-Id` or a new one, and each failure an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = b""
        lengths = 0
        coding = b"chunked"
        for name, value in scope["headers"]:
            if name == b"request-id":
                request_id = value
            elif name == b"content-length":
                lengths += 1
            elif name == b"transfer-encoding":
                lengths += 1
                coding = value
        if _REQUEST_ID(request_id) is None:
            request_id = _new_request_id().encode()
        scope["request_id"] = request_id.decode()
        has_begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"request-id", request_id),
                    *(() if message["status"] == 429 else scope.get("rate_limit", ())),
                ]
            await send(message)

        try:
            if lengths > 1:  # where one server sees the end of the body, another may see a second request
                raise ProblemError(400, "ambiguous_length", "send either Content-Length or Transfer-Encoding, once")
            if coding.lower() != b"chunked":
                detail = (
                    "the only Transfer-Encoding that is undone is chunked; say with Content-Encoding what the body is"
                )
                raise ProblemError(400, "unsupported_encoding", detail, headers={"Connection": "close"})
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # By the server alone, of which a process that is to end has asked all the patience that it had.
            if has_begun:
                raise
            detail = "this process is stopping, and what came of the request is unknown; send it again"
            stopping = ProblemError(503, "stopping", detail, headers={"Retry-After": "1"})
            await problem_response(Request(scope), stopping)(scope, receive, send_with_id)
        except Exception as error:
            if has_begun:
                raise
            response = await _answer_to(error)(Request(scope), error)
            await response(scope, receive, send_with_id)
        return None


def _answer_to(error: Exception) -> Callable[[Request, Exception], Awaitable[Response]]:
    return next((_ANSWERS[type_] for type_ in type(error).__mro__ if type_ in _ANSWERS), _on_anything)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path}; the documentation is at /docs"
        return problem_response(request, ProblemError(404, "not_found", detail))
    if error.status_code == 405:
        allowed = ", ".join(_methods(request)) or (error.headers or {}).get("Allow", "")
        detail = f"{request.method} is not possible here; {allowed or 'another method'} is"
        return problem_response(request, ProblemError(405, "method_not_allowed", detail, headers={"Allow": allowed}))
    code = HTTPStatus(error.status_code).name.lower()
    return problem_response(request, ProblemError(error.status_code, code, str(error.detail), headers=error.headers))


def _methods(request: Request) -> list[str]:
    """All that can be done at a path: the route that refuses a method knows of its own only."""
    path, paths = request.url.path, request.app.openapi()["paths"]
    found = {
        method.upper()
        for template, operations in ({path: paths[path]} if path in paths else paths).items()
        if re.fullmatch(re.sub(r"\\{[^{}]*\\}", "[^/]+", re.escape(template)), path)
        for method in operations
    }
    return sorted(found)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if error.errors()[0]["type"] == "json_invalid":
        return problem_response(request, ProblemError(400, "malformed", f"the body is not JSON: {_json_error(error)}"))
    problems = [
        {
            "in": str(one["loc"][0]),
            "pointer": "".join(f"/{part}" for part in one["loc"][1:]),
            "message": _message(one),
        }
        for one in error.errors()[:20]
    ]
    first = problems[0]
    place = " ".join(part for part in (first["in"], first["pointer"]) if part)
    detail = f"{place}: {first['message']}"
    return problem_response(request, ProblemError(422, "invalid_request", detail, more={"problems": problems}))


def _message(one: Mapping[str, Any]) -> str:
    message: str = one["msg"]
    if message.startswith("Value should have at "):
        # Pydantic's words for texts that are looked at by code of our own, too; it names lists as lists.
        message = re.sub(r"\bitem(s?)\b", r"character\1", message)
    return message.removeprefix("Value error, ")


def _json_error(error: RequestValidationError) -> str:
    one = error.errors()[0]
    return f"{one.get('ctx', {}).get('error', one['msg'])} at character {one['loc'][-1]}"


async def _on_log(request: Request, error: Exception) -> Response:
    detail = f"nothing was appended: {error}; try again"
    return problem_response(request, ProblemError(503, "log_unavailable", detail, headers={"Retry-After": "1"}))


async def _on_database(request: Request, error: Exception) -> Response:
    if not is_transient(error):
        return await _on_anything(request, error)
    return problem_response(request, database_unavailable())


def database_unavailable() -> ProblemError:
    """The answer to a question while the database is away."""
    return ProblemError(
        503, "database_unavailable", "the database does not answer; try again", headers={"Retry-After": "1"}
    )


async def _on_anything(request: Request, error: Exception) -> Response:
    logger.error("request %s failed", request.scope.get("request_id"), exc_info=error)
    return problem_response(request, ProblemError(500, "internal_error", "something went wrong on our side"))


_ANSWERS: Mapping[type, Callable[[Request, Exception], Awaitable[Response]]] = {
    ProblemError: _on_problem,
    LogUnavailableError: _on_log,
    DBAPIError: _on_database,
    PoolTimeoutError: _on_database,
    OSError: _on_database,
}
