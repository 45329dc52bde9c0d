"""Errors as `application/problem+json` (RFC 9457), with `code`, `message` and `request_id` beside the standard members.

Every error of the HTTP side leaves through this module; nothing else chooses a status.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
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
_MAX_REQUEST_ID = 128

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
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = dict(more or {})


class Problem(BaseModel):
    """What every error looks like."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no customer 'ada'"])
    instance: str = Field(examples=["/v1/customers/ada"])
    code: str = Field(examples=["customer_not_found"])
    message: str = Field(examples=["there is no customer 'ada'"])
    request_id: str = Field(examples=["0195d8f0-7a86-7000-8000-3f1c2b9f6d1e"])


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
    body = {
        **error.more,
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "instance": request.url.path,
        "code": error.code,
        "message": error.detail,
        "request_id": request.scope.get("request_id", ""),
    }
    return Response(msgspec.json.encode(body), error.status, error.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem, and gives each request an id."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(LogUnavailableError, _on_log)
    app.add_exception_handler(DBAPIError, _on_database)
    app.add_exception_handler(PoolTimeoutError, _on_database)
    app.add_exception_handler(Exception, _on_anything)
    app.add_middleware(RequestIds)


class RequestIds:
    """Takes over the caller's `Request-Id`, or makes one, and gives it back with the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = next((value for name, value in scope["headers"] if name == b"request-id"), b"").decode("latin-1")
        is_fit = 0 < len(given) <= _MAX_REQUEST_ID and given.isascii() and given.isprintable()
        request_id = scope["request_id"] = given if is_fit else str(uuid.uuid4())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"request-id", request_id.encode())]
            await send(message)

        return await self._app(scope, receive, send_with_id)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path}; the documentation is at /docs"
        return problem_response(request, ProblemError(404, "not_found", detail))
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{request.method} is not possible here; {allowed or 'another method'} is"
        return problem_response(request, ProblemError(405, "method_not_allowed", detail, headers=error.headers))
    code = HTTPStatus(error.status_code).name.lower()
    return problem_response(request, ProblemError(error.status_code, code, str(error.detail), headers=error.headers))


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [
        {"in": str(one["loc"][0]), "pointer": "".join(f"/{part}" for part in one["loc"][1:]), "message": one["msg"]}
        for one in error.errors()[:20]
    ]
    first = problems[0]
    detail = f"{first['in']} {first['pointer']}: {first['message']}"
    return problem_response(request, ProblemError(422, "invalid_request", detail, more={"problems": problems}))


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
    if isinstance(error, OSError):  # a refused or lost connection to the database
        return problem_response(request, database_unavailable())
    logger.error("request %s failed", request.scope.get("request_id"), exc_info=error)
    return problem_response(request, ProblemError(500, "internal_error", "something went wrong on our side"))
