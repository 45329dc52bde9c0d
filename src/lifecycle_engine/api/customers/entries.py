"""Facts that are not touchpoints, and the doors that were made for them: each appends one entry to the log.

An answer tells that the entry is durable; it takes effect a moment later, as a touchpoint does, and has a receipt like
one. docs/message.md lists the entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.door.bodies import read_object
from lifecycle_engine.api.door.idempotency import entry_id
from lifecycle_engine.api.door.paths import MAX_NAME, PRINTABLE
from lifecycle_engine.api.keys.authentication import Key
from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.touchpoints.ingest import acknowledged
from lifecycle_engine.api.values import InstantParameter, Text
from lifecycle_engine.ingest.formats.arrivals import Translated
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.log.message import InvalidMessageError, Submission
from lifecycle_engine.store.answers.facts import find_touchpoint
from lifecycle_engine.store.customers import Identity

MAX_BODY_BYTES = 256 * 1024

EntryId = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=128,
        description="Unique among all that is posted with your API key, for ever: the same id takes effect once, so "
        "that a request can be repeated. Absent: the server makes one.",
        examples=["ticket-4711"],
        json_schema_extra={"pattern": PRINTABLE},
    ),
]
OccurredAt = Annotated[
    InstantParameter,
    Field(description="When it took place, not before 1900 and not in the future. Absent: when it arrives."),
]
Name = Annotated[Text, Field(min_length=1, max_length=MAX_NAME, json_schema_extra={"pattern": PRINTABLE})]
Reason = Annotated[Text, Field(min_length=1, max_length=500, description="Why.", examples=["asked for by phone"])]
Actor = Annotated[Text, Field(min_length=1, max_length=500, description="Who did it.", examples=["ada@example.com"])]


class EntryBody(BaseModel):
    """What every entry can say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: EntryId | None = None
    occurred_at: OccurredAt | None = None


Entry = TypeVar("Entry", bound=EntryBody)


class EntryAccepted(BaseModel):
    """An entry that is durable in the log. `GET /v1/touchpoints/{id}` tells what becomes of it."""

    id: str = Field(examples=["ticket-4711"])
    status: Literal["accepted"]


async def read_entry(request: Request, model: type[Entry]) -> Entry:
    """The body of a request that brings an entry, and asks nothing. Raises ProblemError; RequestValidationError."""
    for name in request.query_params:
        # Such as `kind`: whoever sends it means somebody else.
        raise ProblemError(422, "invalid_request", f"query /{name[:80]}: is no parameter here")
    return await read_identified(request, model)


async def read_identified(request: Request, model: type[Entry]) -> Entry:
    """The body of a request that brings an entry. Raises ProblemError; RequestValidationError."""
    body = await read_object(request, model, MAX_BODY_BYTES, "an entry")
    return body if body.id is not None else body.model_copy(update={"id": entry_id(request)})


async def append(
    request: Request,
    key: Key,
    type_: str,
    who: Identity | None,
    properties: Mapping[str, Any],
    *,
    id: str | None,
    occurred_at: int | None = None,
    anonymous_id: str | None = None,
) -> EntryAccepted:
    """Appends an entry about somebody, or nobody; properties that are None are left out.

    Raises ProblemError 422, 503, and LogUnavailableError.
    """
    services: Services = request.app.state.services
    submission = Submission(
        type=type_,
        id=id,
        anonymous_id=anonymous_id,
        occurred_at=None if occurred_at is None else format_instant(occurred_at),
        properties={name: value for name, value in properties.items() if value is not None},
    )
    if who is not None:
        setattr(submission, who.kind, who.value)
    (item,) = await services.intake.take([Translated(submission, None, None, True, {})], key.source)
    if (error := item.error) is not None:
        # Bodies have no `properties`: what these hold stands at the top of them.
        pointer = error.pointer.removeprefix("/properties")
        item = item._replace(error=InvalidMessageError(error.code, error.detail, pointer))
    taken = acknowledged(item)
    return EntryAccepted(id=taken.id, status=taken.status)


async def is_repeated(connection: AsyncConnection, key: Key, id_: str | None) -> bool:
    """Whether an entry of this id is stored: then it is not judged by how things stand since, and takes no effect."""
    return id_ is not None and await find_touchpoint(connection, key.source, id_) is not None
