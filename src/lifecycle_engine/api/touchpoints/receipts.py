"""`GET /v1/touchpoints/{id}`: the receipt, which tells what became of a touchpoint, or an entry, that was posted."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.backlog import is_applied
from lifecycle_engine.api.customers.standing import IdentityAnswer
from lifecycle_engine.api.customers.stays import HistoryItem, Words, history_item, words_for
from lifecycle_engine.api.door.paths import TouchpointId
from lifecycle_engine.api.keys.authentication import Key, requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, Text
from lifecycle_engine.lifecycle.instants import parse_instant
from lifecycle_engine.lifecycle.touchpoints import OVERRIDE, Place
from lifecycle_engine.log.message import decode_body
from lifecycle_engine.log.port import LogUnavailableError
from lifecycle_engine.store.aggregates import LATEST, find_aggregate
from lifecycle_engine.store.answers.facts import SetAside, StoredTouchpoint, find_set_aside, find_touchpoint
from lifecycle_engine.store.answers.stays import KnownLine, LineFilter, find_lines
from lifecycle_engine.store.touchpoints import ABSENT

router = APIRouter(prefix="/v1/touchpoints", tags=["touchpoints"], responses=responses(401, 403, 404, 422, 503))


class ReceiptProblem(BaseModel):
    """Why a touchpoint could not be processed."""

    code: str = Field(examples=["cannot_be_processed"])
    detail: str


class Receipt(BaseModel):
    """What became of a touchpoint. While it is pending, no more is known than its id."""

    id: str
    source: str = Field(description="Within which the id is unique: the name of the poster's API key.")
    status: Literal["pending", "applied", "late", "retracted", "dead_letter"] = Field(
        description="`late`: it changed what was already told. `retracted`: it counts as never accepted. "
        "`dead_letter`: it was set aside, see `problem`."
    )
    type: str | None = Field(examples=["purchase"])
    customer: IdentityAnswer | None = Field(description="Under whose name it is stored; null for a retraction.")
    occurred_at: Instant | None
    recorded_at: Instant | None = Field(description="When it took effect, or was set aside.")
    retracted_at: Instant | None = Field(description="When it was retracted; it may be so before it comes.")
    duplicates: int = Field(description="How often it came again.", examples=[0])
    conflicts: int = Field(description="How often its id came with other content, which was not taken.", examples=[0])
    transitions: list[HistoryItem] = Field(description="The stays that it caused and that stand.")
    problem: ReceiptProblem | None


class ReceiptQuestion(BaseModel):
    """Whose touchpoint is asked for."""

    model_config = ConfigDict(extra="forbid")

    source: Text | None = Field(None, description="The source of the touchpoint; absent: the name of your API key.")


@router.get("/{id}", operation_id="get_touchpoint_receipt", summary="What became of a touchpoint")
async def get_receipt(
    request: Request,
    id: TouchpointId,
    question: Annotated[ReceiptQuestion, Query()],
    key: Annotated[Key, Depends(requires("ingest:write", "customers:read"))],
) -> Receipt:
    """The receipt. 404 once everything that the log held when you asked has been applied without a trace of it."""
    source = key.source if question.source is None else question.source
    return await known_receipt(request.app.state.services, source, id)


async def known_receipt(services: Services, source: str, id_: str) -> Receipt:
    """The receipt of a touchpoint, or of one that may still be on its way. Raises ProblemError 404, 503."""
    try:
        receipt = await find_receipt(services, source, id_)
    except LogUnavailableError as error:
        detail = f"whether it is still on its way cannot be told: {error}; try again"
        raise ProblemError(503, "log_unavailable", detail, headers={"Retry-After": "1"}) from None
    if receipt is None:
        raise ProblemError(
            404, "touchpoint_not_found", f"no touchpoint {id_!r} of the source {source!r} has been accepted"
        )
    return receipt


async def find_receipt(services: Services, source: str, id_: str) -> Receipt | None:
    """The receipt of a touchpoint, `pending` while it may still be on its way; None where it is not.

    Raises LogUnavailableError.
    """
    async with services.database.transaction() as connection:
        found = await _find(connection, source, id_)
    if found is not None:
        return await _receipt(services, source, id_, found)
    # In this order: what was in the log and is applied must be found by the look that comes last.
    bounds = await services.appender.bounds()
    async with services.database.transaction() as connection:
        is_settled = await is_applied(services, connection, bounds)
        found = await _find(connection, source, id_)
    if found is not None:
        return await _receipt(services, source, id_, found)
    if is_settled:
        return None
    return Receipt(
        id=id_,
        source=source,
        status="pending",
        type=None,
        customer=None,
        occurred_at=None,
        recorded_at=None,
        retracted_at=None,
        duplicates=0,
        conflicts=0,
        transitions=[],
        problem=None,
    )


class _Applied(NamedTuple):
    stored: StoredTouchpoint
    lines: list[KnownLine]


async def _find(connection: AsyncConnection, source: str, id_: str) -> _Applied | SetAside | None:
    if stored := await find_touchpoint(connection, source, id_):
        lines = []
        if stored.identity and (aggregate := await find_aggregate(connection, stored.identity, LATEST)):
            lines = await find_lines(connection, aggregate.id, LATEST, LineFilter(causes=_places(stored)))
        return _Applied(stored, lines)
    return await find_set_aside(connection, source, id_)


async def _receipt(services: Services, source: str, id_: str, found: _Applied | SetAside) -> Receipt:
    if isinstance(found, SetAside):
        return _dead_letter(source, id_, found)
    return _accepted(found, await words_for(services.definitions, found.lines, None))


def _places(stored: StoredTouchpoint) -> tuple[Place, ...]:
    """Where there can be lines of its doing: at its own place, and where the pin of an override ends."""
    if stored.type == OVERRIDE and stored.body is not None:
        properties, _ = decode_body(stored.body)
        if (end := properties.get("expires_at")) is not None:
            return stored.place, stored.place._replace(occurred_at=parse_instant(end))
    return (stored.place,)


def _accepted(found: _Applied, words: Words) -> Receipt:
    stored = found.stored
    is_here = stored.type != ABSENT
    return Receipt(
        id=stored.id,
        source=stored.source,
        status="retracted" if stored.retracted_at is not None else "late" if stored.late else "applied",
        type=stored.type if is_here else None,
        customer=IdentityAnswer(**stored.identity._asdict()) if stored.identity else None,
        occurred_at=stored.occurred_at if is_here else None,
        recorded_at=stored.recorded_at if is_here else None,
        retracted_at=stored.retracted_at,
        duplicates=stored.duplicates,
        conflicts=stored.conflicts,
        transitions=[history_item(line, words) for line in found.lines],
        problem=None,
    )


def _dead_letter(source: str, id_: str, set_aside: SetAside) -> Receipt:
    return Receipt(
        id=id_,
        source=source,
        status="dead_letter",
        type=None,
        customer=None,
        occurred_at=None,
        recorded_at=set_aside.recorded_at,
        retracted_at=None,
        duplicates=0,
        conflicts=0,
        transitions=[],
        problem=ReceiptProblem(code=set_aside.code, detail=set_aside.reason),
    )
