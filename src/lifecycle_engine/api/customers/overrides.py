"""`PUT /v1/customers/{customer_id}/journeys/{lifecycle}/stage`: an operator says where a journey is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from lifecycle_engine.api.customers.entries import (
    Actor,
    EntryAccepted,
    EntryBody,
    Reason,
    append,
    is_repeated,
    read_identified,
)
from lifecycle_engine.api.customers.journeys import check_subject, lifecycle_not_found
from lifecycle_engine.api.customers.standing import CustomerQuestion
from lifecycle_engine.api.door.bodies import described
from lifecycle_engine.api.door.idempotency import Idempotent
from lifecycle_engine.api.door.paths import CustomerValue, LifecycleKey
from lifecycle_engine.api.keys.authentication import Key, requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import InstantParameter, Text
from lifecycle_engine.lifecycle.definitions import Definition, closest
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.touchpoints import OVERRIDE
from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.lifecycles import RETIRED, in_force, newest_versions, switches

router = APIRouter(
    prefix="/v1/customers/{customer_id}",
    route_class=Idempotent,
    tags=["customers"],
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)


class OverrideBody(EntryBody):
    """The stage that the journey is to be in."""

    stage: Annotated[str, Field(description="A stage of the version in force at that instant.", examples=["purchase"])]
    subject: Text | None = Field(
        None, description="What the journey is about; needed where the lifecycle is kept per subject, and only there."
    )
    expires_at: InstantParameter | None = Field(
        None,
        description="Until when the stage is pinned. The rules go on beneath, unseen; then the journey is where they "
        "have got to. Absent: the rules go on from this stage.",
    )
    reason: Reason
    actor: Actor


@router.put(
    "/journeys/{lifecycle}/stage",
    operation_id="override_stage",
    summary="Say where a journey is",
    status_code=202,
    response_description="Accepted",
    openapi_extra=described(OverrideBody),
)
async def override_stage(
    request: Request,
    customer_id: CustomerValue,
    lifecycle: LifecycleKey,
    question: Annotated[CustomerQuestion, Query()],
    key: Annotated[Key, Depends(requires("customers:write"))],
) -> EntryAccepted:
    """Appends an `$override`: sets the stage past all guards, and opens the journey if it was not open.

    A later override ends a pin: to do so before its time, send one without `expires_at`. To undo an override as if it
    had never been, retract it by its id: `DELETE /v1/touchpoints/{id}`.
    """
    services: Services = request.app.state.services
    body = await read_identified(request, OverrideBody)
    async with services.database.transaction() as connection:
        is_known = await is_repeated(connection, key, body.id)
    at = services.clock() if body.occurred_at is None else body.occurred_at
    is_over = body.expires_at is not None and body.expires_at <= at
    if is_known and is_over and body.id is not None:
        # It was taken while it was not over; the log takes no pin that ends before it comes.
        return EntryAccepted(id=body.id, status="accepted")
    if not is_known:
        if is_over:
            since = "now" if body.occurred_at is None else "occurred_at"
            raise ProblemError(422, "invalid_time", f"expires_at: must be after {since}, {format_instant(at)}")
        _check(body, await _in_force(services, lifecycle, at))
    return await append(
        request,
        key,
        OVERRIDE,
        Identity(question.kind, customer_id),
        {
            "lifecycle": lifecycle,
            "subject": body.subject,
            "stage": body.stage,
            "expires_at": None if body.expires_at is None else format_instant(body.expires_at),
            "reason": body.reason,
            "actor": body.actor,
        },
        id=body.id,
        occurred_at=body.occurred_at,
    )


async def _in_force(services: Services, lifecycle: str, at: int) -> Definition:
    """The version of a lifecycle that judges at an instant. Raises ProblemError 404, 409."""
    async with services.database.transaction() as connection:
        timeline = in_force(await switches(connection, lifecycle))
        if not timeline and not await newest_versions(connection, lifecycle, None, 1):
            raise lifecycle_not_found(lifecycle)
    if not timeline:
        detail = f"no version of {lifecycle!r} is active, so nobody has a stage in it; activate one"
        raise ProblemError(409, "lifecycle_not_active", detail)
    version = [switch.version for switch in timeline if switch.since is None or switch.since <= at][-1]
    if version == RETIRED:
        detail = f"{lifecycle!r} is retired at {format_instant(at)}, and its journeys stay where they are"
        raise ProblemError(409, "lifecycle_retired", detail)
    return await services.definitions.version(lifecycle, version)


def _check(body: OverrideBody, definition: Definition) -> None:
    if body.stage not in definition.stages:
        hint = closest(body.stage, list(definition.stages)) or f"there are {', '.join(definition.stages)}"
        raise ProblemError(422, "unknown_stage", f"stage: {definition.key!r} has no stage {body.stage[:80]!r}; {hint}")
    check_subject(definition, body.subject)
