"""The history of a customer's journeys: the stage on any day, as it was known on any other, and all stays.

What is answered for a past `known_at` never changes. So such a question first waits for the transactions that could
still record something before that instant, and one about an instant that has not passed is refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.cursors import DEFAULT_LIMIT, Cursor, Limit, Page, decode_cursor, invalid_cursor, page_of
from lifecycle_engine.api.customers.standing import CustomerQuestion, customer_id_of, customer_not_found
from lifecycle_engine.api.customers.stays import Cause, HistoryItem, Words, cause_of, history_item, words_for
from lifecycle_engine.api.door.negotiation import AcceptLanguage
from lifecycle_engine.api.door.paths import CustomerValue, LifecycleKey
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, InstantParameter, Text, split
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.store.aggregates import LATEST, find_aggregate, settle
from lifecycle_engine.store.answers.stays import (
    JourneyAnswer,
    LineFilter,
    LineKey,
    find_lines,
    find_stay,
    lifecycle_is_known,
)
from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.lifecycles import RETIRED, in_force, switches

router = APIRouter(
    prefix="/v1/customers/{customer_id}",
    tags=["customers"],
    dependencies=[Depends(requires("customers:read"))],
    responses=responses(401, 403, 404, 422, 503),
)

KnownAt = Annotated[
    InstantParameter | None,
    Field(
        description="Answers by what was recorded by then; the answer never changes. Must have passed. "
        "Absent: by all that is known."
    ),
]
Subject = Annotated[
    Text | None,
    Field(description="What the journey is about, in a lifecycle that is kept per subject.", examples=["shoes"]),
]


class JourneyQuestion(CustomerQuestion):
    """Which moment of a journey is asked for."""

    subject: Subject = None
    as_of: InstantParameter | None = Field(
        None, description="The instant that is asked about; must not lie in the future. Absent: the last that is known."
    )
    known_at: KnownAt = None


class JourneyMoment(BaseModel):
    """The stay in which a journey was. All of it is null where the journey had not opened."""

    customer_id: str | None = Field(description="Null for somebody who is known by an anonymous id only.")
    lifecycle: str = Field(examples=["five-stages"])
    subject: str | None
    stage: str | None = Field(examples=["purchase"])
    label: str | None = Field(
        description="The stage's label in the language asked for (`Accept-Language`).", examples=["Purchase"]
    )
    entered_at: Instant | None
    left_at: Instant | None = Field(description="When the next stay begins; null for the last one.")
    previous_stage: str | None = Field(examples=["consideration"])
    move: Literal["start", "advance", "skip", "back", "reenter"] | None
    skipped: list[str] = Field(examples=[[]])
    cause: Cause | None
    definition_version: int | None = Field(examples=[1])
    recorded_at: Instant | None = Field(description="Since when this is known.")
    as_of: Instant | None = Field(description="As asked.")
    known_at: Instant | None = Field(description="As asked.")


@router.get("/journeys/{lifecycle}", operation_id="get_journey", summary="The stage at an instant, as known at another")
async def get_journey(
    request: Request,
    response: Response,
    customer_id: CustomerValue,
    lifecycle: LifecycleKey,
    question: Annotated[JourneyQuestion, Query()],
    accept_language: AcceptLanguage = None,
) -> JourneyMoment:
    """The stay with `entered_at` ≤ `as_of` < `left_at`; of two moves at one instant the later one answers."""
    services: Services = request.app.state.services
    identity = Identity(question.kind, customer_id)
    if question.as_of is not None and question.as_of > (now := services.clock()):
        raise in_the_future("as_of", f"must not be after the clock, which is at {format_instant(now)}")
    as_of = LATEST if question.as_of is None else question.as_of
    async with services.database.transaction() as connection:
        known_at = await settled(services, connection, identity, question.known_at)
        answer = await find_stay(connection, identity, lifecycle, question.subject, as_of, known_at)
    if answer is None or not answer.is_known_customer:
        raise customer_not_found(identity)
    if not answer.is_known_lifecycle:
        raise lifecycle_not_found(lifecycle)
    if answer.stay is None:
        await _check_subject(services, lifecycle, question.subject)
    response.headers["Vary"] = "Accept-Language"
    words = await words_for(services.definitions, [answer.stay] if answer.stay else [], accept_language)
    return _moment(answer, lifecycle, question, words)


async def _check_subject(services: Services, lifecycle: str, subject: str | None) -> None:
    """Raises ProblemError 422 where no journey can ever be: whoever forgot the subject must not read "no stage"."""
    async with services.database.transaction() as connection:
        versions = [switch.version for switch in in_force(await switches(connection, lifecycle))]
    # All versions are kept per the same.
    if versions := [version for version in versions if version != RETIRED]:
        check_subject(await services.definitions.version(lifecycle, versions[0]), subject)


def check_subject(definition: Definition, subject: str | None) -> None:
    """Raises ProblemError 422 where the lifecycle has a journey for each subject and none is named, or has none."""
    if definition.subject_path is None and subject is not None:
        detail = f"subject: {definition.key!r} keeps one journey per customer; leave it out"
        raise ProblemError(422, "superfluous_subject", detail)
    if definition.subject_path is not None and subject is None:
        per = ".".join(definition.subject_path)
        raise ProblemError(
            422, "missing_subject", f"subject: {definition.key!r} is kept per {per}; say which it is about"
        )


class HistoryQuestion(CustomerQuestion):
    """Which part of a customer's history is asked for."""

    lifecycle: Text | None = Field(None, description="Only this lifecycle.", examples=["five-stages"])
    subject: Subject = None
    known_at: KnownAt = None
    include: Annotated[list[Literal["superseded", "refusals"]], BeforeValidator(split)] = Field(
        [], description="Also what corrections have superseded; also moves that were refused. Separated by commas."
    )
    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


class HistoryPage(Page[HistoryItem]):
    """Some of the lines of a customer's history."""


@router.get("/history", operation_id="list_history", summary="All stays of a customer", responses=responses(400))
async def list_history(
    request: Request,
    response: Response,
    customer_id: CustomerValue,
    question: Annotated[HistoryQuestion, Query()],
    accept_language: AcceptLanguage = None,
) -> HistoryPage:
    """Stays by lifecycle, subject and `entered_at`; each ends where the next one begins.

    With `include=superseded`, also those that corrections have replaced; each of them ends where it did while it was
    believed. With `include=refusals`, also the moves that were refused, in their place among the stays: `stage` is
    what the rule aimed at, `reason` why it was refused, and `left_at` is null.
    """
    services: Services = request.app.state.services
    identity = Identity(question.kind, customer_id)
    wanted = LineFilter(
        lifecycle=question.lifecycle,
        subject=question.subject,
        superseded="superseded" in question.include,
        refusals="refusals" in question.include,
    )
    asked = ("history", *identity, *wanted, question.known_at)
    after = decode_cursor(question.cursor, asked, LineKey) if question.cursor else None
    async with services.database.transaction() as connection:
        known_at = await settled(services, connection, identity, question.known_at)
        aggregate = await find_aggregate(connection, identity, known_at)
        if aggregate is None:
            raise customer_not_found(identity)
        if question.lifecycle is not None and not await lifecycle_is_known(connection, question.lifecycle, known_at):
            raise lifecycle_not_found(question.lifecycle)
        try:
            lines = await find_lines(connection, aggregate.id, known_at, wanted, after, question.limit + 1)
        except LookupError:
            raise invalid_cursor("leads nowhere") from None
    response.headers["Vary"] = "Accept-Language"
    words = await words_for(services.definitions, lines, accept_language)
    return page_of(
        HistoryPage, lines, question.limit, asked, lambda known: known.key, lambda known: history_item(known, words)
    )


def lifecycle_not_found(key: str) -> ProblemError:
    """The answer about a lifecycle that is not there, or was not there then."""
    return ProblemError(404, "lifecycle_not_found", f"there is no lifecycle {key!r}")


async def settled(services: Services, connection: AsyncConnection, identity: Identity, known_at: int | None) -> int:
    """The instant to answer by, of which everything is recorded that will ever be. Raises ProblemError 422."""
    if known_at is None:
        return LATEST
    now = await settle(services.database, connection, identity)
    if known_at >= now:
        raise in_the_future("known_at", f"must be before the database's clock, which is at {format_instant(now)}")
    return known_at


def in_the_future(parameter: str, detail: str) -> ProblemError:
    return ProblemError(422, "in_the_future", f"{parameter} {detail}")


def _moment(answer: JourneyAnswer, lifecycle: str, question: JourneyQuestion, words: Words) -> JourneyMoment:
    known = answer.stay
    event = known.line.event if known else None
    return JourneyMoment(
        customer_id=customer_id_of(answer.customer),
        lifecycle=lifecycle,
        subject=question.subject,
        stage=event.stage if event else None,
        label=words.label(event) if event else None,
        entered_at=event.at if event else None,
        left_at=known.left_at if known else None,
        previous_stage=event.origin if event else None,
        move=event.move if event else None,
        skipped=list(event.skipped) if event else [],
        cause=cause_of(event) if event else None,
        definition_version=event.definition_version if event else None,
        recorded_at=known.line.recorded_at if known else None,
        as_of=question.as_of,
        known_at=question.known_at,
    )
