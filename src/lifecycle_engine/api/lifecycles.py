"""`/v1/lifecycles`: definitions, posted as they are written, numbered by the server, and activated."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lifecycle_engine.api.authentication import requires
from lifecycle_engine.api.bodies import read_body, read_json
from lifecycle_engine.api.cursors import DEFAULT_LIMIT, Cursor, Limit, Page, decode_cursor, page_of
from lifecycle_engine.api.journeys import lifecycle_not_found
from lifecycle_engine.api.paths import LifecycleKey, VersionNumber
from lifecycle_engine.api.problems import Problem, ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant
from lifecycle_engine.catalog.documents import MAX_BYTES, Document, DocumentError, MediaTypeError, read_document
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import DefinitionError, compile_definition
from lifecycle_engine.store.lifecycles import (
    Summary,
    Version,
    activate_version,
    add_version,
    find_summary,
    find_version,
    lock_definitions,
    newest_versions,
    summaries,
)

READ = Depends(requires("lifecycles:read"))
WRITE = Depends(requires("lifecycles:write"))

router = APIRouter(prefix="/v1/lifecycles", tags=["lifecycles"], responses=responses(401, 403, 422, 503))


class LifecycleAnswer(BaseModel):
    """A lifecycle and how far it has come."""

    lifecycle: str = Field(examples=["five-stages"])
    active_version: int | None = Field(description="Null while none has been activated.", examples=[1])
    newest_version: int = Field(examples=[2])
    created_at: Instant = Field(description="When its first version was posted.")


class VersionAnswer(BaseModel):
    """One version of a lifecycle. Versions never change."""

    lifecycle: str = Field(examples=["five-stages"])
    version: int = Field(examples=[1])
    created_at: Instant
    activated_at: Instant | None = Field(description="Null while it has not been activated.")


class LifecyclePage(Page[LifecycleAnswer]):
    """Some of the lifecycles."""


class VersionPage(Page[VersionAnswer]):
    """Some of a lifecycle's versions."""


class DocumentAnswer(VersionAnswer):
    """One version with its document."""

    media_type: str = Field(examples=["application/yaml"])
    document: str = Field(description="As it was posted.", examples=["lifecycle: five-stages\ninitial: awareness\n…"])


class Mistake(BaseModel):
    """One mistake in a posted document."""

    pointer: str = Field(description="The JSON pointer of its place.", examples=["/rules/2/to"])
    line: int = Field(description="From 1.", examples=[17])
    column: int = Field(description="From 1.", examples=[15])
    message: str = Field(examples=["there is no stage 'purchse'"])
    hint: str | None = Field(examples=["did you mean 'purchase'?"])


class InvalidDefinition(Problem):
    """A document that is no lifecycle definition, with all that was found wrong."""

    problems: list[Mistake]


_DOCUMENT = {"schema": {"type": "string", "description": "A lifecycle definition."}}


@router.post(
    "",
    operation_id="post_lifecycle",
    summary="Post a definition",
    status_code=201,
    response_description="Stored as a new version",
    dependencies=[WRITE],
    responses={
        200: {"model": VersionAnswer, "description": "The newest version is this very document already"},
        **responses(400, 413, 415),
        422: {
            "description": "Not a definition",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/InvalidDefinition"}}},
            "model": InvalidDefinition,
        },
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/yaml": _DOCUMENT,
                "application/json": {"schema": {"type": "object", "description": "A lifecycle definition."}},
            },
        }
    },
)
async def post_lifecycle(request: Request, response: Response) -> VersionAnswer:
    """Stores the document as the next version of its lifecycle. It takes effect once it is activated."""
    services: Services = request.app.state.services
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Reading YAML and compiling guards can take a while, and others are waiting.
    document, key = await asyncio.to_thread(_checked, await _document_body(request), media_type)
    async with services.database.transaction() as connection:
        await lock_definitions(connection)
        newest = next(iter(await newest_versions(connection, key, None, 1)), None)
        if newest is not None and (newest.document, newest.media_type) == (document.text, media_type):
            response.status_code = 200
            return _version(newest)
        # Read while nobody asks about the past: whoever does so later is answered by an earlier clock.
        now = await services.database.clock(connection)
        return _version(await add_version(connection, key, document.text, media_type, now))


class LifecyclesQuestion(BaseModel):
    """Which part of the list is asked for."""

    model_config = ConfigDict(extra="forbid")

    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


@router.get("", operation_id="list_lifecycles", summary="All lifecycles", dependencies=[READ], responses=responses(400))
async def list_lifecycles(request: Request, question: Annotated[LifecyclesQuestion, Query()]) -> LifecyclePage:
    """The lifecycles in the order of their keys."""
    services: Services = request.app.state.services
    asked = ("lifecycles",)
    (after,) = decode_cursor(question.cursor, asked, tuple[str]) if question.cursor else ("",)
    async with services.database.transaction() as connection:
        found = await summaries(connection, after, question.limit + 1)
    return page_of(LifecyclePage, found, question.limit, asked, lambda one: (one.key,), _summary)


@router.get(
    "/{lifecycle}",
    operation_id="get_lifecycle",
    summary="One lifecycle",
    dependencies=[READ],
    responses=responses(404),
)
async def get_lifecycle(request: Request, lifecycle: LifecycleKey) -> LifecycleAnswer:
    """Which version of it is active, and which is the newest."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        found = await find_summary(connection, lifecycle)
    if found is None:
        raise lifecycle_not_found(lifecycle)
    return _summary(found)


@router.get(
    "/{lifecycle}/versions",
    operation_id="list_lifecycle_versions",
    summary="All versions of a lifecycle",
    dependencies=[READ],
    responses=responses(400, 404),
)
async def list_versions(
    request: Request, lifecycle: LifecycleKey, question: Annotated[LifecyclesQuestion, Query()]
) -> VersionPage:
    """The versions, the newest first."""
    services: Services = request.app.state.services
    asked = ("versions", lifecycle)
    before = decode_cursor(question.cursor, asked, tuple[int])[0] if question.cursor else None
    async with services.database.transaction() as connection:
        found = await newest_versions(connection, lifecycle, before, question.limit + 1)
        if not found and await find_summary(connection, lifecycle) is None:
            raise lifecycle_not_found(lifecycle)
    return page_of(VersionPage, found, question.limit, asked, lambda one: (one.version,), _version)


@router.get(
    "/{lifecycle}/versions/{version}",
    operation_id="get_lifecycle_version",
    summary="One version with its document",
    dependencies=[READ],
    responses=responses(404),
)
async def get_version(request: Request, lifecycle: LifecycleKey, version: VersionNumber) -> DocumentAnswer:
    """The document as it was posted."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        found = await find_version(connection, lifecycle, version)
    if found is None:
        raise _version_not_found(lifecycle, version)
    return DocumentAnswer(**dict(_version(found)), media_type=found.media_type, document=found.document)


MAX_ACTIVATION_BYTES = 64 * 1024


class Activation(BaseModel):
    """Which version is to take effect."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[int, Field(ge=1, le=2**31 - 1, examples=[1])]


class ActivationAnswer(BaseModel):
    """The version that is active now."""

    lifecycle: str = Field(examples=["five-stages"])
    version: int = Field(examples=[1])
    activated_at: Instant


@router.post(
    "/{lifecycle}/activate",
    operation_id="activate_lifecycle",
    summary="Let a version take effect",
    dependencies=[WRITE],
    responses=responses(400, 404, 409, 413, 415),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": Activation.model_json_schema()}},
        }
    },
)
async def activate_lifecycle(request: Request, lifecycle: LifecycleKey) -> ActivationAnswer:
    """From now on touchpoints are judged by it; the history that is there is folded under it in the background.

    A first version holds from the beginning of time, and nobody is told of what it makes of the past. The version
    that is active already stays so, and is answered the same.
    """
    services: Services = request.app.state.services
    # Not a parameter of the route: FastAPI would read it, however long, before it is known who asks.
    activation = _activation(await read_json(request.scope, request.receive, MAX_ACTIVATION_BYTES, "an activation"))
    async with services.database.transaction() as connection:
        await lock_definitions(connection)
        version = await find_version(connection, lifecycle, activation.version)
        if version is None:
            raise _version_not_found(lifecycle, activation.version)
        summary = await find_summary(connection, lifecycle)
        active = summary.active_version if summary else None
        if active is None:
            now = await services.database.clock(connection)
            await activate_version(connection, lifecycle, activation.version, now)
        elif active == activation.version and version.activated_at is not None:
            now = version.activated_at
        else:
            raise ProblemError(
                409,
                "switch_not_supported",
                f"version {active} of {lifecycle!r} is active, and a lifecycle cannot switch to another version yet; "
                "post the document under another key to activate it beside this one",
            )
    return ActivationAnswer(lifecycle=lifecycle, version=activation.version, activated_at=now)


async def _document_body(request: Request) -> bytes:
    return await read_body(request.scope, request.receive, MAX_BYTES, "a definition")


def _activation(body: bytes) -> Activation:
    try:
        return Activation.model_validate_json(body)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False, include_context=False)
        if mistakes[0]["type"] == "json_invalid":
            raise ProblemError(400, "malformed", f"the body is not JSON: {mistakes[0]['msg']}") from None
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in mistakes]) from None


def _checked(body: bytes, media_type: str) -> tuple[Document, str]:
    """The document, found to be a definition, and its lifecycle's key. Raises ProblemError 415, 422."""
    try:
        document = read_document(body, media_type)
    except MediaTypeError as error:
        raise ProblemError(415, "unsupported_media_type", error.message) from None
    except DocumentError as error:
        raise _invalid(
            [Mistake(pointer="", line=error.line, column=error.column, message=error.message, hint=None)]
        ) from None
    try:
        return document, compile_definition(document.data, Cel()).key
    except DefinitionError as error:
        mistakes = []
        for pointer, message, hint in error.problems:
            line, column = document.locate(pointer)
            mistakes.append(Mistake(pointer=pointer, line=line, column=column, message=message, hint=hint))
        raise _invalid(mistakes) from None


def _invalid(mistakes: list[Mistake]) -> ProblemError:
    first = mistakes[0]
    others = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    detail = f"line {first.line}, column {first.column}: {first.message}{others}"
    return ProblemError(
        422, "invalid_definition", detail, more={"problems": [mistake.model_dump() for mistake in mistakes]}
    )


def _version_not_found(lifecycle: str, version: int) -> ProblemError:
    return ProblemError(404, "version_not_found", f"there is no version {version} of a lifecycle {lifecycle!r}")


def _summary(summary: Summary) -> LifecycleAnswer:
    return LifecycleAnswer(
        lifecycle=summary.key,
        active_version=summary.active_version,
        newest_version=summary.newest_version,
        created_at=summary.created_at,
    )


def _version(version: Version) -> VersionAnswer:
    return VersionAnswer(
        lifecycle=version.key,
        version=version.version,
        created_at=version.created_at,
        activated_at=version.activated_at,
    )
