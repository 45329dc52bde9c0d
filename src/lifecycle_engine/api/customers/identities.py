"""`/v1/customers/{customer_id}/identities` and `…/traits`: who is who, and what is known of them.

docs/identity.md gives the rules by which links decide.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from lifecycle_engine.api.cursors import DEFAULT_LIMIT, Cursor, Limit, Page, decode_cursor, page_of
from lifecycle_engine.api.customers.entries import (
    Actor,
    EntryAccepted,
    EntryBody,
    EntryId,
    Name,
    OccurredAt,
    Reason,
    append,
    read_entry,
)
from lifecycle_engine.api.customers.journeys import KnownAt, settled
from lifecycle_engine.api.customers.standing import CustomerQuestion, customer_not_found
from lifecycle_engine.api.door.bodies import described
from lifecycle_engine.api.door.idempotency import Idempotent
from lifecycle_engine.api.door.paths import AnonymousId, CustomerId, CustomerValue
from lifecycle_engine.api.keys.authentication import Key, requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, Kind
from lifecycle_engine.engine.identities import linked_to
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, LINK, UNLINK
from lifecycle_engine.store.aggregates import LATEST, KnownIdentity, find_aggregate, identities_of
from lifecycle_engine.store.customers import Identity, names_of
from lifecycle_engine.store.ownership import links_of

router = APIRouter(
    prefix="/v1/customers/{customer_id}",
    route_class=Idempotent,
    tags=["identities"],
    responses=responses(401, 403, 422, 503),
)
WRITE = requires("customers:write")


class KnownIdentityAnswer(BaseModel):
    """A name that belongs to a customer."""

    kind: Kind
    value: str = Field(examples=["3f1c"])
    recorded_at: Instant | None = Field(
        description="Since when it is known to belong to the customer; null for the customer's own name."
    )


class IdentityPage(Page[KnownIdentityAnswer]):
    """Some of a customer's identities."""


class IdentitiesQuestion(CustomerQuestion):
    """Which part of a customer's identities is asked for."""

    known_at: KnownAt = None
    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


@router.get(
    "/identities",
    operation_id="list_identities",
    summary="By which names a customer is known",
    dependencies=[Depends(requires("customers:read"))],
    responses=responses(400, 404),
)
async def list_identities(
    request: Request, customer_id: CustomerValue, question: Annotated[IdentitiesQuestion, Query()]
) -> IdentityPage:
    """The customer's own name, the anonymous ids that it owns, and what was merged into it, with its anonymous ids."""
    services: Services = request.app.state.services
    identity = Identity(question.kind, customer_id)
    asked = ("identities", *identity, question.known_at)
    after = decode_cursor(question.cursor, asked, Identity) if question.cursor else None
    async with services.database.transaction() as connection:
        known_at = await settled(services, connection, identity, question.known_at)
        if await find_aggregate(connection, identity, known_at) is None:
            raise customer_not_found(identity)
        found = await identities_of(connection, identity, known_at, after, question.limit + 1)
    return page_of(IdentityPage, found, question.limit, asked, lambda one: one.identity, _answer)


class LinkBody(EntryBody):
    """Which anonymous id belongs to the customer."""

    anonymous_id: Annotated[Name, Field(description="Whose past it is.", examples=["3f1c"])]
    reason: Reason | None = None
    actor: Actor | None = None


@router.post(
    "/identities",
    operation_id="link_identity",
    summary="Link an anonymous id to a customer",
    status_code=202,
    response_description="Accepted",
    responses=responses(400, 413, 415),
    openapi_extra=described(LinkBody),
)
async def link_identity(
    request: Request, customer_id: CustomerId, key: Annotated[Key, Depends(WRITE)]
) -> EntryAccepted:
    """Appends a `$link`. An anonymous id belongs to the customer of its earliest link, for all time.

    So its past comes along, and both sides are folded again. A touchpoint that names both is a link already; this one
    is needed where none does, and after an unlink.
    """
    body = await read_entry(request, LinkBody)
    return await append(
        request,
        key,
        LINK,
        Identity("customer_id", customer_id),
        {"reason": body.reason, "actor": body.actor},
        id=body.id,
        occurred_at=body.occurred_at,
        anonymous_id=body.anonymous_id,
    )


class UnlinkQuestion(BaseModel):
    """What else there is to say of an unlink."""

    model_config = ConfigDict(extra="forbid")

    id: EntryId | None = None
    occurred_at: OccurredAt | None = None
    reason: Reason | None = None
    actor: Actor | None = None


@router.delete(
    "/identities/{anonymous_id}",
    operation_id="unlink_identity",
    summary="Part an anonymous id from a customer",
    status_code=202,
    response_description="Accepted",
    responses=responses(409),
)
async def unlink_identity(
    request: Request,
    customer_id: CustomerId,
    anonymous_id: AnonymousId,
    question: Annotated[UnlinkQuestion, Query()],
    key: Annotated[Key, Depends(WRITE)],
) -> EntryAccepted:
    """Appends an `$unlink`: the two count as never linked, also by what names both later, until linked again.

    409 where the anonymous id came to this customer by the link to another one that was merged into it.
    """
    who = Identity("customer_id", customer_id)
    if (linked := await _linked_through(request.app.state.services, who, anonymous_id)) is not None:
        raise ProblemError(
            409,
            "linked_to_another",
            f"{anonymous_id!r} is linked to {linked!r}, which was merged into {customer_id!r}; part it from {linked!r}",
        )
    return await append(
        request,
        key,
        UNLINK,
        who,
        {"reason": question.reason, "actor": question.actor},
        id=question.id,
        occurred_at=question.occurred_at,
        anonymous_id=anonymous_id,
    )


class TraitsBody(EntryBody):
    """What is known of the customer from an instant on."""

    traits: dict[str, Any] = Field(
        description="Traits by their names; the others stay as they are, and null takes one away.",
        examples=[{"plan": "pro", "country": "NL"}],
    )
    anonymous_id: Annotated[Name, Field(description="Is linked to the customer by this.")] | None = None


@router.post(
    "/traits",
    operation_id="post_traits",
    summary="Say what is known of a customer",
    status_code=202,
    response_description="Accepted",
    responses=responses(400, 413, 415),
    openapi_extra=described(TraitsBody),
)
async def post_traits(
    request: Request,
    customer_id: CustomerId,
    key: Annotated[Key, Depends(requires("customers:write", "ingest:write"))],
) -> EntryAccepted:
    """Appends an `$identify`. Guards see the last value of each trait by event time; then conditions are judged."""
    body = await read_entry(request, TraitsBody)
    return await append(
        request,
        key,
        IDENTIFY,
        Identity("customer_id", customer_id),
        {"traits": body.traits},
        id=body.id,
        occurred_at=body.occurred_at,
        anonymous_id=body.anonymous_id,
    )


async def _linked_through(services: Services, who: Identity, anonymous_id: str) -> str | None:
    """The other customer_id through which an anonymous id belongs to a customer, if it does."""
    async with services.database.transaction() as connection:
        aggregate = await find_aggregate(connection, Identity("anonymous_id", anonymous_id), LATEST)
        if aggregate is None or who not in aggregate.identities:
            return None
        row = linked_to(await links_of(connection, [anonymous_id])).get(anonymous_id)
        linked = None if row is None else (await names_of(connection, [row])).get(row)
    return None if linked is None or linked == who else linked.value


def _answer(known: KnownIdentity) -> KnownIdentityAnswer:
    return KnownIdentityAnswer(**known.identity._asdict(), recorded_at=known.recorded_at)
