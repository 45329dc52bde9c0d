"""`/v1/customers/{customer_id}`: where a customer stands, and what was accepted about it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from lifecycle_engine.api.cursors import DEFAULT_LIMIT, Cursor, Limit, Page, decode_cursor, page_of
from lifecycle_engine.api.customers.stays import StageLabel
from lifecycle_engine.api.door.negotiation import AcceptLanguage, label_of
from lifecycle_engine.api.door.paths import CustomerValue
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, Kind, split
from lifecycle_engine.engine.refold import folded
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.fold import fold, next_timer
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.journeys import CustomerState, JourneyState
from lifecycle_engine.lifecycle.touchpoints import Place
from lifecycle_engine.log.message import decode_body
from lifecycle_engine.store.aggregates import LATEST, Aggregate, find_aggregate
from lifecycle_engine.store.answers.facts import StoredTouchpoint, facts_of, newest_touchpoints
from lifecycle_engine.store.answers.overviews import find_overview
from lifecycle_engine.store.customers import Identity

router = APIRouter(
    prefix="/v1/customers/{customer_id}",
    tags=["customers"],
    dependencies=[Depends(requires("customers:read"))],
    responses=responses(401, 403, 404, 422, 503),
)


class CustomerQuestion(BaseModel):
    """What every question about a customer can say."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind = Field("customer_id", description="What kind of identity the customer is named by.")


class IdentityAnswer(BaseModel):
    """A name under which touchpoints of the customer were posted."""

    kind: Kind
    value: str = Field(examples=["42"])


class NextTimer(BaseModel):
    """The timer of a journey that is due next."""

    rule: int = Field(description="The place of its rule in the definition, from 0.", examples=[5])
    to: str = Field(description="The stage that it aims at.", examples=["consideration"])
    due_at: Instant = Field(description="When it fires, unless a touchpoint starts its clock anew.")
    warn_at: Instant | None = Field(description="From when on it is announced; null where it is not.")


class Journey(BaseModel):
    """A customer's passage through one lifecycle, for one subject, as it stands."""

    lifecycle: str = Field(examples=["five-stages"])
    subject: str | None = Field(description="What the journey is about; null where the lifecycle has no subjects.")
    stage: str = Field(examples=["purchase"])
    label: StageLabel
    entered_at: Instant
    previous_stage: str | None = Field(examples=["consideration"])
    sequence: int = Field(description="The number of the journey's last change.", examples=[3])
    measures: dict[str, JsonValue] = Field(
        description="The definition's figures; null where there is no value yet, or one beyond a double.",
        examples=[{"purchases": 2, "spend": 60.5}],
    )
    next_timer: NextTimer | None = Field(
        description="What will move the journey unless something happens before; "
        "while an operator has pinned the stage, what goes on beneath."
    )
    definition_version: int = Field(examples=[1])


class Customer(BaseModel):
    """A customer as it stands now."""

    customer_id: str | None = Field(description="Null for somebody who is known by an anonymous id only.")
    identities: list[IdentityAnswer]
    traits: dict[str, JsonValue] = Field(examples=[{}])
    first_touchpoint_at: Instant | None = Field(
        description="When the first of its touchpoints occurred; null where it has none that was not retracted."
    )
    last_touchpoint_at: Instant | None = Field(description="When the last of its touchpoints occurred.")
    journeys: list[Journey]


class AcceptedTouchpoint(BaseModel):
    """A touchpoint, or another fact, as it was accepted."""

    id: str
    source: str = Field(description="Within which the id is unique: the name of the poster's API key.")
    type: str = Field(examples=["purchase"])
    customer_id: str | None
    anonymous_id: str | None
    occurred_at: Instant
    received_at: Instant = Field(description="When it was posted.")
    recorded_at: Instant = Field(description="When it took effect.")
    properties: dict[str, JsonValue] | None = Field(description="Null once they are pruned.")
    context: dict[str, JsonValue] | None = Field(description="Null once it is pruned.")
    muted: bool = Field(description="Whether nobody was told of what it alone caused.")
    retracted_at: Instant | None = Field(description="Since when it counts as never accepted; null while it counts.")


class TouchpointPage(Page[AcceptedTouchpoint]):
    """Some of a customer's touchpoints."""


def customer_not_found(identity: Identity) -> ProblemError:
    """The answer about a customer of whom no touchpoint is known, or was known then."""
    return ProblemError(
        404, "customer_not_found", f"no touchpoint is known of the customer whose {identity.kind} is {identity.value!r}"
    )


def customer_id_of(identity: Identity) -> str | None:
    return identity.value if identity.kind == "customer_id" else None


@router.get("", operation_id="get_customer", summary="Where a customer stands now")
async def get_customer(
    request: Request,
    response: Response,
    customer_id: CustomerValue,
    question: Annotated[CustomerQuestion, Query()],
    accept_language: AcceptLanguage = None,
) -> Customer:
    """Every journey of the customer, with its stage, since when it is there, and its measures."""
    services: Services = request.app.state.services
    response.headers["Vary"] = "Accept-Language"
    identity = Identity(question.kind, customer_id)
    async with services.database.transaction() as connection:
        overview = await find_overview(connection, identity)
    if overview is None:
        raise customer_not_found(identity)
    aggregate = overview.aggregate
    state = overview.state or await _folded(services, aggregate)
    journeys = []
    for lifecycle, subjects in sorted(state.journeys.items()):
        for subject, journey in sorted(subjects.items(), key=lambda item: item[0] or ""):
            definition = await services.definitions.version(lifecycle, journey.definition_version)
            current = journey.current
            journeys.append(
                Journey(
                    lifecycle=lifecycle,
                    subject=subject,
                    stage=current.stage,
                    label=label_of(definition, current.stage, accept_language),
                    entered_at=current.entered_at,
                    previous_stage=current.previous_stage,
                    sequence=overview.sequences.get(lifecycle, {}).get(subject, 0),
                    measures=_figures(definition, journey, services.clock()),
                    next_timer=_next_timer(definition, journey),
                    definition_version=journey.definition_version,
                )
            )
    return Customer(
        customer_id=customer_id_of(aggregate.identity),
        identities=[IdentityAnswer(**one._asdict()) for one in aggregate.identities],
        traits=state.traits,
        first_touchpoint_at=overview.first_touchpoint_at,
        last_touchpoint_at=overview.last_touchpoint_at,
        journeys=journeys,
    )


class TouchpointsQuestion(CustomerQuestion):
    """Which part of a customer's touchpoints is asked for."""

    include: Annotated[list[Literal["facts"]], BeforeValidator(split)] = Field(
        [], description="`facts`: also what is no touchpoint, such as traits, links, merges and overrides."
    )
    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


@router.get(
    "/touchpoints",
    operation_id="list_customer_touchpoints",
    summary="What was accepted about a customer",
    responses=responses(400),
)
async def list_touchpoints(
    request: Request, customer_id: CustomerValue, question: Annotated[TouchpointsQuestion, Query()]
) -> TouchpointPage:
    """The customer's touchpoints, the one that occurred last first; those that were retracted are marked."""
    services: Services = request.app.state.services
    identity = Identity(question.kind, customer_id)
    asked = ("touchpoints", *identity, question.include)
    before = decode_cursor(question.cursor, asked, Place) if question.cursor else None
    async with services.database.transaction() as connection:
        aggregate = await find_aggregate(connection, identity, LATEST)
        if aggregate is None:
            raise customer_not_found(identity)
        found = await newest_touchpoints(
            connection, aggregate.members, before, question.limit + 1, facts="facts" in question.include
        )
    return page_of(TouchpointPage, found, question.limit, asked, lambda one: one.place, _accepted)


def _accepted(stored: StoredTouchpoint) -> AcceptedTouchpoint:
    properties, context = (None, None) if stored.body is None else decode_body(stored.body)
    who = stored.identity
    return AcceptedTouchpoint(
        id=stored.id,
        source=stored.source,
        type=stored.type,
        customer_id=who.value if who is not None and who.kind == "customer_id" else None,
        anonymous_id=who.value if who is not None and who.kind == "anonymous_id" else stored.anonymous_id,
        occurred_at=stored.occurred_at,
        received_at=stored.received_at,
        recorded_at=stored.recorded_at,
        properties=properties,
        context=context,
        muted=stored.muted,
        retracted_at=stored.retracted_at,
    )


def _figures(definition: Definition, journey: JourneyState, now: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for measure, total in zip(definition.measures, journey.totals, strict=True):
        value = measure.read(total if measure.within is None else measure.let_go(total, now))
        if value is not None and measure.path == ("occurred_at",):
            value = format_instant(value)
        figures[measure.name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return figures


def _next_timer(definition: Definition, journey: JourneyState) -> NextTimer | None:
    found = next_timer(definition, journey)
    if found is None:
        return None
    rule, timer, due = found
    return NextTimer(rule=rule.index, to=rule.to, due_at=due, warn_at=None if timer.warn is None else due - timer.warn)


async def _folded(services: Services, aggregate: Aggregate) -> CustomerState:
    """The state that the customer's facts make, where the stored one cannot be read."""
    definitions = await services.definitions.reload()
    async with services.database.transaction() as connection:
        facts = await facts_of(connection, aggregate, LATEST)
    return fold(definitions.active, folded(facts))
