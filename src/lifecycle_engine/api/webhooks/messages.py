"""`/v1/webhooks/messages/{id}`: what was sent, to whom, and once more if need be."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lifecycle_engine.api.door.bodies import described, read_object
from lifecycle_engine.api.door.paths import Part
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, Text
from lifecycle_engine.api.webhooks.deliveries import DeliveryAnswer, delivery_answer
from lifecycle_engine.api.webhooks.endpoints import READ, WRITE, endpoint_not_found
from lifecycle_engine.store.deliveries import NewDelivery, add_deliveries
from lifecycle_engine.store.delivery_log import deliveries_of, hasten, pending_delivery
from lifecycle_engine.store.endpoints import lock_endpoint
from lifecycle_engine.store.messages import find_messages

router = APIRouter(prefix="/v1/webhooks/messages/{id}", tags=["webhooks"], responses=responses(401, 403, 404, 422, 503))

MAX_BODY_BYTES = 4 * 1024

MessageId = Annotated[
    Part, Path(description="The id of a message: its `webhook-id`.", examples=["msg_01M0PF1C00J6K8N2P4R6T8V0XA"])
]


class MessageAnswer(BaseModel):
    """A message and what became of it."""

    id: str = Field(description="Its `webhook-id`.", examples=["msg_01M0PF1C00J6K8N2P4R6T8V0XA"])
    event_type: str = Field(examples=["stage.changed"])
    lifecycle: str | None
    recorded_at: Instant = Field(description="When it was recorded what it tells.")
    created_at: Instant
    body: dict[str, Any] | None = Field(description="What is sent, the same at each attempt.")
    deliveries: list[DeliveryAnswer] = Field(description="One for each endpoint, and each time that it was sent again.")


class Resending(BaseModel):
    """Whom it is sent to again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    endpoint_id: Text = Field(examples=["ep_01M0PF1C00R5W3Q0X8M4T6B2ZD"])


@router.get("", operation_id="get_message", summary="One message", dependencies=[READ])
async def get_message(request: Request, id: MessageId) -> MessageAnswer:
    """What was sent, and how it went with each endpoint. Kept for 30 days (a setting)."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        message = (await find_messages(connection, [id])).get(id)
        if message is None:
            raise _not_found(id)
        deliveries = await deliveries_of(connection, id)
    return MessageAnswer(
        id=message.id,
        event_type=message.type,
        lifecycle=message.lifecycle,
        recorded_at=message.recorded_at,
        created_at=message.created_at,
        body=None if message.body is None else msgspec.json.decode(message.body),
        deliveries=[delivery_answer(one) for one in deliveries],
    )


@router.post(
    "/resend",
    operation_id="resend_message",
    summary="Send a message again",
    status_code=202,
    response_description="Queued; or it was on its way still, and is attempted now",
    dependencies=[WRITE],
    responses=responses(400, 409, 413, 415),
    openapi_extra=described(Resending),
)
async def resend_message(request: Request, response: Response, id: MessageId) -> DeliveryAnswer:
    """Sends it to one endpoint again, whatever became of it, under the same `webhook-id` and by the whole schedule."""
    services: Services = request.app.state.services
    body = await read_object(request, Resending, MAX_BODY_BYTES, "a resending")
    async with services.database.transaction() as connection:
        message = (await find_messages(connection, [id])).get(id)
        if message is None or message.body is None:
            raise _not_found(id)
        endpoint = await lock_endpoint(connection, body.endpoint_id)
        if endpoint is None:
            raise endpoint_not_found(body.endpoint_id)
        if endpoint.disabled_at is not None:
            detail = (
                f"the endpoint {endpoint.id} is disabled; enable it first: POST /v1/webhooks/endpoints/{{id}}/enable"
            )
            raise ProblemError(409, "endpoint_disabled", detail)
        now = await services.database.clock(connection)
        pending = await pending_delivery(connection, endpoint.id, id)
        if pending is None:
            lane = message.customer if endpoint.is_ordered else None
            await add_deliveries(connection, [NewDelivery(endpoint.id, id, lane, "resend", now, now)])
        else:
            await hasten(connection, pending.id, now)
        pending = await pending_delivery(connection, endpoint.id, id)
        assert pending is not None
    return delivery_answer(pending)


def _not_found(id_: str) -> ProblemError:
    return ProblemError(404, "message_not_found", f"there is no message {id_[:64]!r}, or it is kept no longer")
