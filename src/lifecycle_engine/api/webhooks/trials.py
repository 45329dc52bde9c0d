"""`POST /v1/webhooks/endpoints/{id}/test`: sends one event now, and shows what the receiver said."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from lifecycle_engine.api.door.bodies import described, read_object
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.webhooks.deliveries import text_of
from lifecycle_engine.api.webhooks.endpoints import WRITE, EndpointId, existing, vault_closed
from lifecycle_engine.api.webhooks.events import EventTypeName
from lifecycle_engine.api.webhooks.examples import example
from lifecycle_engine.outbox import events
from lifecycle_engine.outbox.ids import new_id
from lifecycle_engine.outbox.vault import VaultError
from lifecycle_engine.store.attempts import FAILED, SUCCEEDED, AttemptRow, add_attempts
from lifecycle_engine.store.deliveries import DELIVERED, NewDelivery
from lifecycle_engine.store.deliveries import FAILED as GIVEN_UP
from lifecycle_engine.store.delivery_log import add_ended_delivery
from lifecycle_engine.store.messages import MessageRow, add_messages
from lifecycle_engine.webhook.exchange import Exchange
from lifecycle_engine.webhook.request import headers
from lifecycle_engine.webhook.secrets import stored_secrets

router = APIRouter(prefix="/v1/webhooks/endpoints/{id}", tags=["webhooks"], responses=responses(401, 403, 422, 503))

MAX_BODY_BYTES = 4 * 1024
SECOND = 1_000_000
PATIENCE = 3.0
"""Seconds that a receiver still has to answer in once the process is stopping."""


class Trial(BaseModel):
    """What is to be sent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    event_type: EventTypeName = Field(
        events.TEST,
        description=f"`{events.TEST}`, or a type whose example is to be sent (`GET /v1/webhooks/event-types`). The "
        "example's customer and endpoint don't exist.",
    )


class TrialRequest(BaseModel):
    """What was sent."""

    url: str
    headers: dict[str, str]
    body: dict[str, Any]


class TrialAnswer(BaseModel):
    """What was sent, and what the receiver said."""

    message_id: str = Field(description="The `webhook-id`.", examples=["msg_01M0PF1C00J6K8N2P4R6T8V0XA"])
    status: Literal["succeeded", "failed"]
    status_code: int | None = Field(description="Null: there was no answer.", examples=[204])
    failure: str | None = Field(description="Why there was no whole answer.", examples=[None])
    detail: str | None = Field(description="The same in a sentence.", examples=[None])
    milliseconds: int
    response: str | None = Field(description="The first 16 KiB of the answer's body.")
    request: TrialRequest


@router.post(
    "/test",
    operation_id="test_endpoint",
    summary="Send an event to an endpoint now",
    response_description="It was tried; `status` says whether it arrived",
    dependencies=[WRITE],
    responses=responses(400, 404, 413, 415),
    openapi_extra={"requestBody": {**described(Trial)["requestBody"], "required": False}},
)
async def test_endpoint(request: Request, id: EndpointId) -> TrialAnswer:
    """Sends one signed event as deliveries are sent, and waits for what the receiver says, at most 15 seconds.

    It is not tried again, counts for nothing, and shows among the endpoint's attempts. Works while it is disabled, too.
    """
    services: Services = request.app.state.services
    body = Trial()
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        body = await read_object(request, Trial, MAX_BODY_BYTES, "a test")
    type_ = body.event_type
    try:
        async with services.database.transaction() as connection:
            endpoint = await existing(connection, id)
            now = await services.database.clock(connection)
            secrets = (await stored_secrets(connection, services.vault, [id], now)).get(id, [])
    except VaultError as error:
        raise vault_closed(error) from None
    message_id = new_id("msg_", now)
    sent = events.test_body(id, now) if type_ == events.TEST else msgspec.json.encode(example(type_))
    head = headers([one.secret for one in secrets], message_id, now // SECOND, sent)
    # No transaction is open meanwhile.
    exchange = await _while_running(services, services.sender.send(endpoint.url, head, sent))
    milliseconds = int(exchange.seconds * 1000)
    message = MessageRow(message_id, type_, None, None, None, None, now, now, sent)
    outcome = SUCCEEDED if exchange.succeeded else FAILED
    async with services.database.transaction() as connection:
        await add_messages(connection, [message])
        delivery = await add_ended_delivery(
            connection,
            NewDelivery(id, message_id, None, "test", now, now),
            DELIVERED if exchange.succeeded else GIVEN_UP,
            now + milliseconds * 1000,
        )
        attempt = AttemptRow(
            delivery=delivery,
            number=1,
            endpoint=id,
            message=message_id,
            type=type_,
            trigger="test",
            at=now,
            milliseconds=milliseconds,
            status=outcome,
            status_code=exchange.status,
            failure=None if exchange.failure is None else str(exchange.failure),
            response=exchange.response or None,
        )
        await add_attempts(connection, [attempt])
    return TrialAnswer(
        message_id=message_id,
        status="succeeded" if exchange.succeeded else "failed",
        status_code=exchange.status,
        failure=attempt.failure,
        detail=f"the URL {exchange.detail}" if exchange.detail else None,
        milliseconds=milliseconds,
        response=text_of(attempt.response),
        request=TrialRequest(url=endpoint.url, headers=head, body=msgspec.json.decode(sent)),
    )


async def _while_running(services: Services, exchange: Coroutine[Any, Any, Exchange]) -> Exchange:
    """What comes of an exchange. Raises ProblemError 503 where the process has to stop before that is known."""
    sending = asyncio.create_task(exchange)
    draining = asyncio.create_task(services.health.draining.wait())
    try:
        await asyncio.wait({sending, draining}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            await asyncio.wait({sending}, timeout=PATIENCE)
        if sending.done():
            return sending.result()
        detail = "this process is stopping, and the receiver has not answered so far; send another test"
        raise ProblemError(503, "stopping", detail, headers={"Retry-After": "1"})
    finally:
        sending.cancel()
        draining.cancel()
