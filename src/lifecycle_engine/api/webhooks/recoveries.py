"""`POST /v1/webhooks/endpoints/{id}/recover`: sends again what an endpoint has missed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from lifecycle_engine.api.door.bodies import described, read_object
from lifecycle_engine.api.jobs import RecoveryJob, recovery_job
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import InstantParameter
from lifecycle_engine.api.webhooks.endpoints import WRITE, EndpointId, endpoint_not_found
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.outbox.recovery import begin_recovery
from lifecycle_engine.store.endpoints import lock_endpoint
from lifecycle_engine.store.recoveries import unfinished_recovery

router = APIRouter(prefix="/v1/webhooks/endpoints/{id}", tags=["webhooks"], responses=responses(401, 403, 422, 503))

MAX_BODY_BYTES = 4 * 1024


class RecoveryBody(BaseModel):
    """What is to be sent again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    since: InstantParameter = Field(description="What was recorded at this instant or later. At most 30 days back.")
    until: Annotated[
        InstantParameter | None, Field(description="What was recorded before this instant. Absent: before now.")
    ] = None


@router.post(
    "/recover",
    operation_id="recover_endpoint",
    summary="Send again what an endpoint has missed",
    status_code=202,
    response_description="The job, which goes on behind this answer",
    dependencies=[WRITE],
    responses=responses(400, 404, 409, 413, 415),
    openapi_extra=described(RecoveryBody),
)
async def recover_endpoint(request: Request, id: EndpointId) -> RecoveryJob:
    """Queues every event of that time that matches the endpoint's filter and that it has not taken.

    That is what was given up or dropped, what came while it was disabled, and what was before it was created. Events
    keep their `webhook-id`. How far the job has come is told at `/v1/jobs/{id}`.
    """
    services: Services = request.app.state.services
    body = await read_object(request, RecoveryBody, MAX_BODY_BYTES, "a recovery")
    async with services.database.transaction() as connection:
        endpoint = await lock_endpoint(connection, id)
        if endpoint is None:
            raise endpoint_not_found(id)
        if endpoint.disabled_at is not None:
            detail = "the endpoint is disabled; enable it first: POST …/enable"
            raise ProblemError(409, "endpoint_disabled", detail)
        if (running := await unfinished_recovery(connection, id)) is not None:
            detail = f"the endpoint is being recovered already, by the job {running.id}; wait until it has finished"
            raise ProblemError(409, "already_recovering", detail, more={"job": running.id})
        now = await services.database.clock(connection)
        until = now if body.until is None else body.until
        if body.since >= until:
            raise ProblemError(422, "invalid_time", f"since: must be before until, {format_instant(until)}")
        if until > now:
            raise ProblemError(422, "invalid_time", f"until: must not be in the future; it is {format_instant(now)}")
        if body.since < (first := now - services.webhook_retention):
            detail = (
                f"since: messages are kept from {format_instant(first)} on; what was before can be read in /v1/changes"
            )
            raise ProblemError(422, "too_long_ago", detail)
        return recovery_job(await begin_recovery(connection, id, body.since, until, now))
