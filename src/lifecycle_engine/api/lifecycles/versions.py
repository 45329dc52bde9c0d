"""`/v1/lifecycles`: definitions, posted as they are written and numbered by the server."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from lifecycle_engine.api.cursors import Page, PageQuestion, decode_cursor, page_of
from lifecycle_engine.api.customers.journeys import lifecycle_not_found
from lifecycle_engine.api.door.idempotency import Idempotent
from lifecycle_engine.api.door.paths import LifecycleKey, VersionNumber
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.lifecycles.definitions import (
    DOCUMENT_BODY,
    InvalidDefinition,
    Mistake,
    invalid,
    reviewed_document,
)
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant
from lifecycle_engine.store.lifecycles import (
    Summary,
    Version,
    add_version,
    find_summary,
    find_version,
    lock_definitions,
    newest_versions,
    summaries,
)

READ = Depends(requires("lifecycles:read"))
WRITE = Depends(requires("lifecycles:write"))

router = APIRouter(
    prefix="/v1/lifecycles", route_class=Idempotent, tags=["lifecycles"], responses=responses(401, 403, 422, 503)
)


class LifecycleAnswer(BaseModel):
    """A lifecycle and how far it has come."""

    lifecycle: str = Field(examples=["five-stages"])
    active_version: int | None = Field(
        description="The version that is in force now; null before the first is activated, and once it is retired.",
        examples=[1],
    )
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


class PostedAnswer(VersionAnswer):
    """The version that a posted document is."""

    warnings: list[Mistake] = Field(description="What is allowed, and yet cannot be meant; it stops nothing.")


@router.post(
    "",
    operation_id="post_lifecycle",
    summary="Post a definition",
    status_code=201,
    response_description="Stored as a new version",
    dependencies=[WRITE],
    responses={
        200: {"model": PostedAnswer, "description": "The newest version is this very document already"},
        **responses(400, 413, 415),
        422: {
            "description": "Not a definition",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/InvalidDefinition"}}},
            "model": InvalidDefinition,
        },
    },
    openapi_extra=DOCUMENT_BODY,
)
async def post_lifecycle(request: Request, response: Response) -> PostedAnswer:
    """Stores the document as the next version of its lifecycle. It takes effect once it is activated."""
    services: Services = request.app.state.services
    reviewed = await reviewed_document(request)
    if reviewed.document is None or reviewed.definition is None:
        raise invalid(reviewed)
    key, text, media_type = reviewed.definition.key, reviewed.document.text, reviewed.media_type
    async with services.database.transaction() as connection:
        await lock_definitions(connection)
        newest = next(iter(await newest_versions(connection, key, None, 1)), None)
        if newest is not None and (newest.document, newest.media_type) == (text, media_type):
            response.status_code = 200
        else:
            # Read while nobody asks about the past: whoever does so later is answered by an earlier clock.
            now = await services.database.clock(connection)
            newest = await add_version(connection, key, text, media_type, now)
    return PostedAnswer(**dict(_version(newest)), warnings=reviewed.warnings)


@router.get("", operation_id="list_lifecycles", summary="All lifecycles", dependencies=[READ], responses=responses(400))
async def list_lifecycles(request: Request, question: Annotated[PageQuestion, Query()]) -> LifecyclePage:
    """The lifecycles in the order of their keys."""
    services: Services = request.app.state.services
    asked = ("lifecycles",)
    (after,) = decode_cursor(question.cursor, asked, tuple[str]) if question.cursor else ("",)
    async with services.database.transaction() as connection:
        now = await services.database.clock(connection)
        found = await summaries(connection, after, question.limit + 1, now)
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
        found = await find_summary(connection, lifecycle, await services.database.clock(connection))
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
    request: Request, lifecycle: LifecycleKey, question: Annotated[PageQuestion, Query()]
) -> VersionPage:
    """The versions, the newest first."""
    services: Services = request.app.state.services
    asked = ("versions", lifecycle)
    before = decode_cursor(question.cursor, asked, tuple[int])[0] if question.cursor else None
    async with services.database.transaction() as connection:
        found = await newest_versions(connection, lifecycle, before, question.limit + 1)
        now = await services.database.clock(connection)
        if not found and await find_summary(connection, lifecycle, now) is None:
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
        raise version_not_found(lifecycle, version)
    return DocumentAnswer(**dict(_version(found)), media_type=found.media_type, document=found.document)


def version_not_found(lifecycle: str, version: int) -> ProblemError:
    """The answer about a version that was never posted."""
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
