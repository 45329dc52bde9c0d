"""What a version of a lifecycle looks like: its stages by their labels, and its diagram, in the language asked for."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lifecycle_engine.api.customers.journeys import lifecycle_not_found
from lifecycle_engine.api.door.negotiation import AcceptLanguage, languages, media_type
from lifecycle_engine.api.door.paths import LifecycleKey, VersionNumber
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.lifecycles.versions import version_not_found
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.diagrams.mermaid import mermaid
from lifecycle_engine.diagrams.svg import POLICY, svg
from lifecycle_engine.diagrams.words import names
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.store.lifecycles import find_summary

router = APIRouter(
    prefix="/v1/lifecycles/{lifecycle}",
    tags=["lifecycles"],
    dependencies=[Depends(requires("lifecycles:read"))],
    responses=responses(401, 403, 404, 422, 503),
)

SVG, MERMAID, PLAIN = "image/svg+xml", "text/vnd.mermaid", "text/plain"
_OFFERED = {None: (SVG, MERMAID, PLAIN), "svg": (SVG,), "mermaid": (PLAIN, MERMAID)}


class StageAnswer(BaseModel):
    """One stage."""

    stage: str = Field(examples=["consideration"])
    rank: int = Field(description="Its place in the order, from 0; it decides what is a step forward.", examples=[1])
    label: str = Field(description="In the language asked for.", examples=["Overweging"])
    labels: dict[str, str] = Field(
        description="By language.", examples=[{"en": "Consideration", "nl": "Overweging", "ja": "検討"}]
    )
    requires: list[str] = Field(description="What must hold at its entrance.", examples=[["measures.purchases >= 2"]])
    initial: bool = Field(description="Whether journeys are judged from it before they open.")


class StagesAnswer(BaseModel):
    """The stages of a version in the order of their ranks."""

    lifecycle: str = Field(examples=["five-stages"])
    version: int = Field(examples=[1])
    stages: list[StageAnswer]


class DiagramQuestion(BaseModel):
    """In which form the diagram is asked for."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["svg", "mermaid"] | None = Field(None, description="Absent: what `Accept` says, else SVG.")


_DIAGRAM = {
    200: {
        "description": "The diagram",
        "content": {type_: {"schema": {"type": "string"}} for type_ in (SVG, MERMAID, PLAIN)},
        "headers": {
            "Content-Language": {"schema": {"type": "string"}, "description": "The languages that it speaks."},
            "Content-Location": {"schema": {"type": "string"}, "description": "The diagram of the version shown."},
        },
    },
    **responses(406),
}


@router.get(
    "/versions/{version}/stages",
    operation_id="list_stages",
    summary="The stages of a version",
    response_description="The stages, with labels in the language asked for",
)
async def list_stages(
    request: Request,
    response: Response,
    lifecycle: LifecycleKey,
    version: VersionNumber,
    accept_language: AcceptLanguage = None,
) -> StagesAnswer:
    """All of them, in the order of their ranks."""
    definition = await _definition(request.app.state.services, lifecycle, version)
    wanted = languages(accept_language)
    called = names(definition, wanted)
    spoken = {one.language: None for one in called.stages.values() if one.language is not None}
    response.headers["Vary"] = "Accept-Language"
    if spoken:
        response.headers["Content-Language"] = ", ".join(spoken)
    stages = [
        StageAnswer(
            stage=key,
            rank=stage.rank,
            label=called.stages[key].text,
            labels=dict(stage.labels),
            requires=[guard.source for guard in stage.requires],
            initial=key == definition.initial,
        )
        for key, stage in definition.stages.items()
    ]
    return StagesAnswer(lifecycle=lifecycle, version=version, stages=stages)


@router.get(
    "/versions/{version}/diagram",
    operation_id="get_version_diagram",
    summary="The diagram of a version",
    response_class=Response,
    responses=_DIAGRAM,
)
async def get_version_diagram(
    request: Request,
    lifecycle: LifecycleKey,
    version: VersionNumber,
    question: Annotated[DiagramQuestion, Query()],
    accept_language: AcceptLanguage = None,
) -> Response:
    """Drawn from what the fold itself looks up: stages by rank, and each rule with the stages it can lead away from."""
    return await _diagram(request, lifecycle, version, question, accept_language)


@router.get(
    "/diagram",
    operation_id="get_diagram",
    summary="The diagram of a lifecycle",
    response_class=Response,
    responses=_DIAGRAM,
)
async def get_diagram(
    request: Request,
    lifecycle: LifecycleKey,
    question: Annotated[DiagramQuestion, Query()],
    accept_language: AcceptLanguage = None,
) -> Response:
    """That of the active version; where none is active, of the newest."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        found = await find_summary(connection, lifecycle, await services.database.clock(connection))
    if found is None:
        raise lifecycle_not_found(lifecycle)
    return await _diagram(request, lifecycle, found.active_version or found.newest_version, question, accept_language)


async def _diagram(
    request: Request, lifecycle: str, version: int, question: DiagramQuestion, accept_language: str | None
) -> Response:
    accept = ", ".join(request.headers.getlist("accept")) or None
    offered = _OFFERED[question.format]
    chosen = media_type(accept, offered)
    if chosen is None and question.format is None:
        detail = f"a diagram is {', '.join(offered)}; accept one of them, or ask for it with `format`"
        raise ProblemError(406, "not_acceptable", detail, headers={"Vary": "Accept, Accept-Language"})
    type_ = chosen or offered[0]
    definition = await _definition(request.app.state.services, lifecycle, version)
    wanted = languages(accept_language)
    # A large one takes a while, and others are waiting.
    text = await asyncio.to_thread(svg if type_ == SVG else mermaid, definition, wanted)
    headers = {
        "Content-Language": ", ".join(names(definition, wanted).languages),
        "Content-Location": f"/v1/lifecycles/{lifecycle}/versions/{version}/diagram",
        "Vary": "Accept, Accept-Language",
        "X-Content-Type-Options": "nosniff",
    }
    if type_ == SVG:
        headers["Content-Security-Policy"] = POLICY
    return Response(text, headers=headers, media_type=type_)


async def _definition(services: Services, lifecycle: str, version: int) -> Definition:
    try:
        return await services.definitions.version(lifecycle, version)
    except LookupError:
        raise version_not_found(lifecycle, version) from None
