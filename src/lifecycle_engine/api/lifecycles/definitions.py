"""Posted definition documents: read, checked, and every mistake told with its place; `/v1/lifecycles/validate`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from lifecycle_engine.api.door.bodies import read_body
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.problems import Problem, ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.catalog.documents import MAX_BYTES, Document, DocumentError, MediaTypeError, read_document
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.checks import review
from lifecycle_engine.lifecycle.checks.successions import hindrances, idle_renames
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.definitions import Problem as Finding
from lifecycle_engine.store.lifecycles import find_summary

router = APIRouter(prefix="/v1/lifecycles", tags=["lifecycles"], responses=responses(401, 403, 422, 503))


class Mistake(BaseModel):
    """One mistake in a posted document, or what may be one."""

    pointer: str = Field(description="The JSON pointer of its place.", examples=["/rules/2/to"])
    line: int = Field(description="From 1.", examples=[17])
    column: int = Field(description="From 1.", examples=[15])
    message: str = Field(examples=["there is no stage 'purchse'"])
    hint: str | None = Field(examples=["did you mean 'purchase'?"])


class InvalidDefinition(Problem):
    """A document that is no lifecycle definition, with all that was found wrong."""

    problems: list[Mistake]
    warnings: list[Mistake]


class ValidationAnswer(BaseModel):
    """What there is to say of a document. Nothing was stored."""

    valid: bool = Field(description="Whether it would be taken as a new version.")
    lifecycle: str | None = Field(description="Null where it cannot be read so far.", examples=["five-stages"])
    problems: list[Mistake] = Field(description="What keeps it from being taken, at most 50.")
    warnings: list[Mistake] = Field(description="What is allowed, and yet cannot be meant, at most 50.")
    activation: list[Mistake] = Field(
        description="What would keep it from taking over from the active version of its lifecycle."
    )


class Reviewed(NamedTuple):
    """A posted document and what was found in it; `document` is None where it cannot even be read."""

    media_type: str
    document: Document | None
    definition: Definition | None
    problems: list[Mistake]
    warnings: list[Mistake]

    @property
    def key(self) -> str | None:
        data = self.document.data if self.document is not None else None
        key = data.get("lifecycle") if isinstance(data, dict) else None
        return key if isinstance(key, str) and len(key) <= 64 else None


_DOCUMENT = {"schema": {"type": "string", "description": "A lifecycle definition."}}
DOCUMENT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": _DOCUMENT,
            "application/json": {"schema": {"type": "object", "description": "A lifecycle definition."}},
        },
    }
}
"""The body of a request that posts a document, for OpenAPI."""


@router.post(
    "/validate",
    operation_id="validate_lifecycle",
    summary="Check a definition",
    dependencies=[Depends(requires("lifecycles:read"))],
    responses=responses(400, 413, 415),
    openapi_extra=DOCUMENT_BODY,
)
async def validate_lifecycle(request: Request) -> ValidationAnswer:
    """Everything that is wrong with a document, each with its place, and what may be. Nothing is changed.

    Also tells what would keep it from being activated, as things stand now.
    """
    services: Services = request.app.state.services
    reviewed = await reviewed_document(request)
    activation: list[Mistake] = []
    warnings = reviewed.warnings
    if reviewed.definition is not None and reviewed.document is not None:
        async with services.database.transaction() as connection:
            now = await services.database.clock(connection)
            summary = await find_summary(connection, reviewed.definition.key, now)
        if summary is not None and summary.active_version is not None:
            active = await services.definitions.version(summary.key, summary.active_version)
            activation = _mistakes(reviewed.document, hindrances(active, reviewed.definition))
            warnings = warnings + _mistakes(reviewed.document, idle_renames(active, reviewed.definition))
    return ValidationAnswer(
        valid=reviewed.definition is not None,
        lifecycle=reviewed.key,
        problems=reviewed.problems,
        warnings=warnings,
        activation=activation,
    )


async def reviewed_document(request: Request) -> Reviewed:
    """The document in the body of a request. Raises ProblemError 400, 413, 415."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request.scope, request.receive, MAX_BYTES, "a definition")
    # Reading YAML and compiling guards can take a while, and others are waiting.
    return await asyncio.to_thread(_reviewed, body, media_type)


def invalid(reviewed: Reviewed) -> ProblemError:
    """The refusal of a document that has mistakes."""
    first = reviewed.problems[0]
    others = f" (and {len(reviewed.problems) - 1} more)" if len(reviewed.problems) > 1 else ""
    detail = f"line {first.line}, column {first.column}: {first.message}{others}"
    found = {
        "problems": [mistake.model_dump() for mistake in reviewed.problems],
        "warnings": [mistake.model_dump() for mistake in reviewed.warnings],
    }
    return ProblemError(422, "invalid_definition", detail, more=found)


def _reviewed(body: bytes, media_type: str) -> Reviewed:
    try:
        document = read_document(body, media_type)
    except MediaTypeError as error:
        raise ProblemError(415, "unsupported_media_type", error.message) from None
    except DocumentError as error:
        mistake = Mistake(pointer="", line=error.line, column=error.column, message=error.message, hint=None)
        return Reviewed(media_type, None, None, [mistake], [])
    definition, errors, warnings = review(document.data, Cel())
    return Reviewed(media_type, document, definition, _mistakes(document, errors), _mistakes(document, warnings))


def _mistakes(document: Document, findings: Iterable[Finding]) -> list[Mistake]:
    """The findings in the order of their places in the text."""
    mistakes = []
    for pointer, message, hint in findings:
        line, column = document.locate(pointer)
        mistakes.append(Mistake(pointer=pointer, line=line, column=column, message=message, hint=hint))
    return sorted(mistakes, key=lambda mistake: (mistake.line, mistake.column))
