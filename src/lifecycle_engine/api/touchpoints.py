"""`GET /v1/touchpoints/{id}`: the receipt, which tells what became of a touchpoint that was posted."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.authentication import Key, requires
from lifecycle_engine.api.customers import IdentityAnswer
from lifecycle_engine.api.paths import TouchpointId
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.stays import HistoryItem, history_item
from lifecycle_engine.api.values import Instant, Text
from lifecycle_engine.log.port import LogUnavailableError
from lifecycle_engine.store.aggregates import LATEST, find_aggregate
from lifecycle_engine.store.answers.facts import SetAside, StoredTouchpoint, find_set_aside, find_touchpoint
from lifecycle_engine.store.answers.stays import KnownLine, LineFilter, find_lines
from lifecycle_engine.store.positions import read_positions

router = APIRouter(prefix="/v1/touchpoints", tags=["touchpoints"], responses=responses(401, 403, 404, 422, 503))


class ReceiptProblem(BaseModel):
    """Why a touchpoint could not be processed."""

    code: str = Field(examples=["cannot_be_processed"])
    detail: str


class Receipt(BaseModel):
    """What became of a touchpoint. While it is pending, no more is known than its id."""

    id: str
    source: str = Field(description="Within which the id is unique: the name of the poster's API key.")
    status: Literal["pending", "applied", "late", "dead_letter"] = Field(
        description="`late`: it changed what was already told. `dead_letter`: it was set aside, see `problem`."
    )
    customer: IdentityAnswer | None = Field(description="Under whose name it is stored.")
    occurred_at: Instant | None
    recorded_at: Instant | None = Field(description="When it took effect, or was set aside.")
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
    source = key.name if question.source is None else question.source
    try:
        receipt = await find_receipt(request.app.state.services, source, id)
    except LogUnavailableError as error:
        detail = f"whether it is still on its way cannot be told: {error}; try again"
        raise ProblemError(503, "log_unavailable", detail, headers={"Retry-After": "1"}) from None
    if receipt is None:
        raise ProblemError(
            404, "touchpoint_not_found", f"no touchpoint {id!r} of the source {source!r} has been accepted"
        )
    return receipt


async def find_receipt(services: Services, source: str, id_: str) -> Receipt | None:
    """The receipt of a touchpoint, `pending` while it may still be on its way; None where it is not.

    Raises LogUnavailableError.
    """
    async with services.database.transaction() as connection:
        if receipt := await _receipt(connection, source, id_):
            return receipt
    # In this order: what was in the log and is applied must be found by the look that comes last.
    bounds = await services.appender.bounds()
    async with services.database.transaction() as connection:
        applied = await read_positions(connection, services.log, list(bounds))
        if receipt := await _receipt(connection, source, id_):
            return receipt
    if all(applied.get(partition, first) >= end for partition, (first, end) in bounds.items()):
        return None
    return Receipt(
        id=id_,
        source=source,
        status="pending",
        customer=None,
        occurred_at=None,
        recorded_at=None,
        duplicates=0,
        conflicts=0,
        transitions=[],
        problem=None,
    )


async def _receipt(connection: AsyncConnection, source: str, id_: str) -> Receipt | None:
    if stored := await find_touchpoint(connection, source, id_):
        lines = []
        if aggregate := await find_aggregate(connection, stored.identity, LATEST):
            lines = await find_lines(connection, aggregate.id, LATEST, LineFilter(cause=stored.place))
        return _accepted(stored, lines)
    if set_aside := await find_set_aside(connection, source, id_):
        return _dead_letter(source, id_, set_aside)
    return None


def _accepted(stored: StoredTouchpoint, lines: list[KnownLine]) -> Receipt:
    return Receipt(
        id=stored.id,
        source=stored.source,
        status="late" if stored.late else "applied",
        customer=IdentityAnswer(kind=stored.identity.kind, value=stored.identity.value),
        occurred_at=stored.occurred_at,
        recorded_at=stored.recorded_at,
        duplicates=stored.duplicates,
        conflicts=stored.conflicts,
        transitions=[history_item(line) for line in lines],
        problem=None,
    )


def _dead_letter(source: str, id_: str, set_aside: SetAside) -> Receipt:
    return Receipt(
        id=id_,
        source=source,
        status="dead_letter",
        customer=None,
        occurred_at=None,
        recorded_at=set_aside.recorded_at,
        duplicates=0,
        conflicts=0,
        transitions=[],
        problem=ReceiptProblem(code=set_aside.code, detail=set_aside.reason),
    )
