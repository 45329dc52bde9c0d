"""`/v1/customers/{customer_id}/merge` and `…/unmerge`: two customers that are one, and that are not after all.

What can be known now is checked now; which merges count is decided by all of them together (docs/identity.md).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.backlog import is_applied
from lifecycle_engine.api.customers.entries import (
    Actor,
    EntryAccepted,
    EntryBody,
    Name,
    Reason,
    append,
    is_repeated,
    read_entry,
)
from lifecycle_engine.api.door.bodies import described
from lifecycle_engine.api.door.idempotency import Idempotent
from lifecycle_engine.api.door.paths import CustomerId
from lifecycle_engine.api.keys.authentication import Key, requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.touchpoints import MERGE, UNMERGE
from lifecycle_engine.log.message import decode_body
from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.ownership import members_named, merges_of

router = APIRouter(
    prefix="/v1/customers/{customer_id}",
    route_class=Idempotent,
    tags=["identities"],
    responses=responses(400, 401, 403, 409, 413, 415, 422, 503),
)
WRITE = requires("customers:write")


class MergeBody(EntryBody):
    """Into whom the customer goes."""

    into: Annotated[Name, Field(description="The customer_id that stays.", examples=["42"])]
    reason: Reason
    actor: Actor


class UnmergeBody(EntryBody):
    """Why the customer is one of its own again."""

    reason: Reason
    actor: Actor


class _Word(NamedTuple):
    """The last merge or unmerge of a customer_id; `into` is None for an unmerge."""

    occurred_at: int
    into: str | None


@router.post(
    "/merge",
    operation_id="merge_customer",
    summary="Merge a customer into another",
    status_code=202,
    response_description="Accepted",
    openapi_extra=described(MergeBody),
)
async def merge_customer(
    request: Request, customer_id: CustomerId, key: Annotated[Key, Depends(WRITE)]
) -> EntryAccepted:
    """Appends a `$merge`: from now on both are one, under the name that stays, with all touchpoints of both.

    Both are folded again, and `customer.merged` is told. 409 where the customer is merged into another one already,
    or the other one belongs to it.
    """
    services: Services = request.app.state.services
    body = await read_entry(request, MergeBody)
    who, into = Identity("customer_id", customer_id), Identity("customer_id", body.into)
    if who == into:
        raise ProblemError(422, "merged_into_itself", "into: a customer cannot be merged into itself")
    async with services.database.transaction() as connection:
        if not await is_repeated(connection, key, body.id):
            last = await _last_word(connection, who)
            _check_instant(customer_id, last, body.occurred_at)
            if last is not None and last.into not in (None, body.into):
                detail = f"{customer_id!r} is merged into {last.into!r}; unmerge it first"
                raise ProblemError(409, "already_merged", detail)
            rows = {member.identity: member for member in await members_named(connection, [who, into])}
            if into in rows and who in rows and rows[into].owner == rows[who].id:
                detail = f"{body.into!r} is merged into {customer_id!r}, and a circle has no end; unmerge it first"
                raise ProblemError(409, "circular_merge", detail)
    return await append(
        request,
        key,
        MERGE,
        who,
        {"into": body.into, "reason": body.reason, "actor": body.actor},
        id=body.id,
        occurred_at=body.occurred_at,
    )


@router.post(
    "/unmerge",
    operation_id="unmerge_customer",
    summary="Part a merged customer from the other",
    status_code=202,
    response_description="Accepted",
    openapi_extra=described(UnmergeBody),
)
async def unmerge_customer(
    request: Request, customer_id: CustomerId, key: Annotated[Key, Depends(WRITE)]
) -> EntryAccepted:
    """Appends an `$unmerge`: the customer is one of its own again, with what named it or an anonymous id of its own.

    409 where it is not merged.
    """
    services: Services = request.app.state.services
    body = await read_entry(request, UnmergeBody)
    who = Identity("customer_id", customer_id)
    bounds = await services.appender.bounds()
    async with services.database.transaction() as connection:
        if not await is_repeated(connection, key, body.id):
            last = await _last_word(connection, who)
            _check_instant(customer_id, last, body.occurred_at)
            # Its merge may still be on its way.
            if (last is None or last.into is None) and await is_applied(services, connection, bounds):
                raise ProblemError(409, "not_merged", f"{customer_id!r} is not merged into anybody")
    return await append(
        request,
        key,
        UNMERGE,
        who,
        {"reason": body.reason, "actor": body.actor},
        id=body.id,
        occurred_at=body.occurred_at,
    )


async def _last_word(connection: AsyncConnection, who: Identity) -> _Word | None:
    """What is known of whom a customer_id is merged into."""
    rows = [member.id for member in await members_named(connection, [who])]
    last = max(await merges_of(connection, rows), key=lambda fact: fact.place, default=None)
    if last is None:
        return None
    properties, _ = decode_body(last.body)
    return _Word(last.place.occurred_at, properties["into"] if last.type == MERGE else None)


def _check_instant(customer_id: str, last: _Word | None, occurred_at: int | None) -> None:
    if last is not None and occurred_at is not None and occurred_at < last.occurred_at:
        what = "unmerged" if last.into is None else f"merged into {last.into!r}"
        detail = (
            f"{customer_id!r} was {what} at {format_instant(last.occurred_at)}, which is later and decides; "
            "leave out occurred_at, or retract that entry"
        )
        raise ProblemError(409, "decided_later", detail)
