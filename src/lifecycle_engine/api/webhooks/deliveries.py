"""`/v1/webhooks/endpoints/{id}/attempts`, `…/deliveries`, `…/stats`: what was sent and answered, and how it goes."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from lifecycle_engine.api.cursors import DEFAULT_LIMIT, Cursor, Limit, Page, decode_cursor, page_of
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, InstantParameter, Text
from lifecycle_engine.api.webhooks.endpoints import READ, EndpointId, existing
from lifecycle_engine.api.webhooks.events import EventTypeName
from lifecycle_engine.store.attempts import SUCCEEDED, AttemptRow
from lifecycle_engine.store.delivery_log import (
    AttemptsWanted,
    DeliveriesWanted,
    LoggedAttempt,
    LoggedDelivery,
    attempt_figures,
    attempts_by_code,
    deliveries_by_status,
    find_attempt,
    newest_attempts,
    newest_deliveries,
    oldest_pending,
)
from lifecycle_engine.store.health import find_health

router = APIRouter(
    prefix="/v1/webhooks/endpoints/{id}",
    tags=["webhooks"],
    dependencies=[READ],
    responses=responses(401, 403, 404, 422, 503),
)

DAY = 86_400_000_000
STATISTICS = 31 * DAY
"""Microseconds that figures go back at most."""

DeliveryStatus = Literal["pending", "delivered", "failed", "dropped"]
Trigger = Literal["change", "endpoint", "test", "resend", "recover"]
CodeClass = Literal["1xx", "2xx", "3xx", "4xx", "5xx", "none"]


class AttemptAnswer(BaseModel):
    """One attempt."""

    id: int = Field(examples=[17])
    message_id: str = Field(description="Its `webhook-id`.", examples=["msg_01M0PF1C00J6K8N2P4R6T8V0XA"])
    event_type: str = Field(examples=["stage.changed"])
    trigger: Trigger = Field(description="What it was sent for.")
    number: int = Field(
        description="Counts the attempts of its schedule from 1; 0: it did not count (a probe, a failure of our own)."
    )
    at: Instant = Field(description="When it began.")
    milliseconds: int = Field(description="How long the whole exchange took.")
    status: Literal["succeeded", "failed"]
    status_code: int | None = Field(description="Null: there was no answer.", examples=[204])
    failure: str | None = Field(
        description="Why there was no whole answer: `timeout`, `refused`, `dns`, `tls`, `denied_address`, `reset` …"
    )


class AttemptDetail(AttemptAnswer):
    """One attempt, and what was answered."""

    response: str | None = Field(
        description="The first 16 KiB of the answer's body; what is not UTF-8 in it is replaced. Null: there was none."
    )


class DeliveryAnswer(BaseModel):
    """A message on its way to an endpoint, or how that ended."""

    id: int = Field(examples=[17])
    endpoint_id: str
    message_id: str
    event_type: str
    status: DeliveryStatus
    trigger: Trigger
    attempts: int = Field(description="Of its schedule, made so far.")
    next_attempt_at: Instant | None = Field(description="Null once it has ended. Later where the endpoint is parked.")
    reason: str | None = Field(
        description="Why it failed or was dropped: `exhausted`, `aborted`, `disabled`, `removed` …", examples=[None]
    )
    created_at: Instant
    finished_at: Instant | None


class AttemptPage(Page[AttemptAnswer]):
    """Some of the attempts."""


class DeliveryPage(Page[DeliveryAnswer]):
    """Some of the deliveries."""


class AttemptsQuestion(BaseModel):
    """Which attempts are asked for."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["succeeded", "failed"] | None = None
    status_code_class: CodeClass | None = Field(None, description="`none`: there was no answer.")
    event_type: EventTypeName | None = None
    message_id: Text | None = None
    since: InstantParameter | None = Field(None, description="Those that began at this instant or later.")
    until: InstantParameter | None = Field(None, description="Those that began before it.")
    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


class DeliveriesQuestion(BaseModel):
    """Which deliveries are asked for."""

    model_config = ConfigDict(extra="forbid")

    status: DeliveryStatus | None = None
    event_type: EventTypeName | None = None
    since: InstantParameter | None = Field(None, description="Those that were queued at this instant or later.")
    until: InstantParameter | None = Field(None, description="Those that were queued before it.")
    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


class StatsQuestion(BaseModel):
    """From when on is counted."""

    model_config = ConfigDict(extra="forbid")

    since: InstantParameter | None = Field(None, description="Absent: the last 24 hours. At most 31 days back.")


class AttemptCounts(BaseModel):
    """Attempts, by what came of them."""

    succeeded: int
    failed: int
    by_outcome: dict[str, int] = Field(
        description="By the status that was answered, or by why there was no answer.",
        examples=[{"204": 41, "timeout": 1}],
    )
    average_milliseconds: int | None
    slowest_milliseconds: int | None


class DeliveryCounts(BaseModel):
    """Deliveries that were queued within that time, by where they are now."""

    pending: int = 0
    delivered: int = 0
    failed: int = 0
    dropped: int = 0


class HealthAnswer(BaseModel):
    """How the endpoint does."""

    state: Literal["well", "failing", "parked", "disabled"] = Field(
        description="`parked`: so much has failed that it is only probed; what is due waits, and spends no attempts."
    )
    parked_until: Instant | None = Field(description="When it is probed next.")
    failing_since: Instant | None = Field(description="The first failure after the last success.")
    last_success_at: Instant | None


class StatsAnswer(BaseModel):
    """How it goes with an endpoint."""

    endpoint_id: str
    since: Instant
    attempts: AttemptCounts
    deliveries: DeliveryCounts
    pending: int = Field(description="What is on its way now, whenever it was queued.")
    oldest_pending_at: Instant | None = Field(description="When the first of that was queued.")
    health: HealthAnswer


@router.get(
    "/attempts", operation_id="list_attempts", summary="What was sent and how it went", responses=responses(400)
)
async def list_attempts(
    request: Request, id: EndpointId, question: Annotated[AttemptsQuestion, Query()]
) -> AttemptPage:
    """The attempts of the last 30 days (a setting), the newest first. `…/attempts/{id}` also has what was answered."""
    services: Services = request.app.state.services
    code_class = question.status_code_class
    wanted = AttemptsWanted(
        question.status,
        None if code_class is None else 0 if code_class == "none" else int(code_class[0]),
        question.event_type,
        question.message_id,
        question.since,
        question.until,
    )
    asked = ("attempts", id, *wanted)
    before = decode_cursor(question.cursor, asked, tuple[int, int]) if question.cursor else None
    async with services.database.transaction() as connection:
        await existing(connection, id)
        found = await newest_attempts(connection, id, wanted, before, question.limit + 1)
    return page_of(AttemptPage, found, question.limit, asked, lambda one: (one.attempt.at, one.id), attempt_answer)


@router.get("/attempts/{attempt}", operation_id="get_attempt", summary="One attempt and what was answered")
async def get_attempt(
    request: Request,
    id: EndpointId,
    attempt: Annotated[int, Path(ge=1, le=2**63 - 1, description="The id of an attempt.", examples=[17])],
) -> AttemptDetail:
    """The attempt with the answer's body; what was sent is the body of its message."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        await existing(connection, id)
        found = await find_attempt(connection, id, attempt)
    if found is None:
        detail = f"the endpoint has no attempt {attempt}, or it is kept no longer"
        raise ProblemError(404, "attempt_not_found", detail)
    return AttemptDetail(**dict(attempt_answer(found)), response=text_of(found.attempt.response))


@router.get("/deliveries", operation_id="list_deliveries", summary="What is on its way, and what has come to its end",
            responses=responses(400))  # fmt: skip
async def list_deliveries(
    request: Request, id: EndpointId, question: Annotated[DeliveriesQuestion, Query()]
) -> DeliveryPage:
    """The deliveries, those that were queued last first; `status=failed` are those that were given up."""
    services: Services = request.app.state.services
    wanted = DeliveriesWanted(question.status, question.event_type, question.since, question.until)
    asked = ("deliveries", id, *wanted)
    before = decode_cursor(question.cursor, asked, tuple[int, int]) if question.cursor else None
    async with services.database.transaction() as connection:
        await existing(connection, id)
        found = await newest_deliveries(connection, id, wanted, before, question.limit + 1)
    return page_of(DeliveryPage, found, question.limit, asked, lambda one: (one.created_at, one.id), delivery_answer)


@router.get("/stats", operation_id="get_endpoint_stats", summary="How it goes with an endpoint")
async def get_stats(request: Request, id: EndpointId, question: Annotated[StatsQuestion, Query()]) -> StatsAnswer:
    """Counts what was attempted since an instant, and tells what is on its way and how the endpoint does."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        endpoint = await existing(connection, id)
        now = await services.database.clock(connection)
        since = max(now - STATISTICS, now - DAY if question.since is None else question.since)
        figures = await attempt_figures(connection, id, since)
        by_outcome = await attempts_by_code(connection, id, since)
        by_status = await deliveries_by_status(connection, id, since)
        pending, oldest = await oldest_pending(connection, id)
        health = await find_health(connection, id)
    is_parked, is_failing = health.parked_until is not None, health.failing_since is not None
    state: Literal["well", "failing", "parked", "disabled"] = (
        "parked" if is_parked else "failing" if is_failing else "well"
    )
    return StatsAnswer(
        endpoint_id=id,
        since=since,
        attempts=AttemptCounts(
            succeeded=figures.succeeded,
            failed=figures.failed,
            by_outcome=by_outcome,
            average_milliseconds=figures.average,
            slowest_milliseconds=figures.slowest,
        ),
        deliveries=DeliveryCounts(**by_status),
        pending=pending,
        oldest_pending_at=oldest,
        health=HealthAnswer(
            state=state if endpoint.disabled_at is None else "disabled",
            parked_until=health.parked_until,
            failing_since=health.failing_since,
            last_success_at=health.last_success_at,
        ),
    )


def attempt_answer(one: LoggedAttempt) -> AttemptAnswer:
    """An attempt as it is shown."""
    attempt: AttemptRow = one.attempt
    return AttemptAnswer(
        id=one.id,
        message_id=attempt.message,
        event_type=attempt.type,
        trigger=attempt.trigger,
        number=attempt.number,
        at=attempt.at,
        milliseconds=attempt.milliseconds,
        status="succeeded" if attempt.status == SUCCEEDED else "failed",
        status_code=attempt.status_code,
        failure=attempt.failure,
    )


def delivery_answer(one: LoggedDelivery) -> DeliveryAnswer:
    """A delivery as it is shown."""
    return DeliveryAnswer(
        id=one.id,
        endpoint_id=one.endpoint,
        message_id=one.message,
        event_type=one.type,
        status=one.status,
        trigger=one.trigger,
        attempts=one.attempts,
        next_attempt_at=one.due_at if one.finished_at is None else None,
        reason=one.reason,
        created_at=one.created_at,
        finished_at=one.finished_at,
    )


def text_of(response: bytes | None) -> str | None:
    """An answer's body for people; None where there was none."""
    return None if response is None else response.decode(errors="replace")
