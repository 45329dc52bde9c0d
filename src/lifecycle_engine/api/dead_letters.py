"""`/v1/dead-letters`: what could not be processed, and workers that stand still before a flood of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lifecycle_engine.api.cursors import DEFAULT_LIMIT, Cursor, Limit, Page, decode_cursor, page_of
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.touchpoints.ingest import outcome_unknown
from lifecycle_engine.api.values import Instant, Text
from lifecycle_engine.log.message import MAX_MESSAGE_BYTES
from lifecycle_engine.log.port import Record
from lifecycle_engine.store.dead_letters import DeadLetter, LetterFilter, find_dead_letter, newest_dead_letters
from lifecycle_engine.store.halts import end_halt, find_halt

router = APIRouter(prefix="/v1/dead-letters", tags=["operate"], responses=responses(400, 401, 403, 422, 503))
READ = Depends(requires("operate:read"))
WRITE = Depends(requires("operate:write"))

MAX_SHOWN = 16_384
"""Characters of a record's value."""


class DeadLetterAnswer(BaseModel):
    """A record of the log that was set aside, as it stood there."""

    partition: int = Field(examples=[0])
    position: int = Field(examples=[4711])
    source: str | None = Field(description="Null where it could not be read.", examples=["shop"])
    id: str | None = Field(description="The touchpoint's; null where it could not be read.", examples=["t-1024"])
    code: str = Field(examples=["not_json"])
    reason: str = Field(examples=["the message is not JSON"])
    recorded_at: Instant
    key: str | None = Field(examples=["customer_id:42"])
    value: str | None = Field(description=f"At most {MAX_SHOWN} characters; bytes that are no UTF-8 as \\xNN.")


class DeadLetterPage(Page[DeadLetterAnswer]):
    """Some of the dead letters."""


class DeadLettersQuestion(BaseModel):
    """Which part of the list is asked for."""

    model_config = ConfigDict(extra="forbid")

    code: Text | None = Field(None, description="Only those of this code.")
    source: Text | None = Field(None, description="Only those of touchpoints of this source.")
    id: Text | None = Field(None, description="Only those of this touchpoint.")
    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


class HaltAnswer(BaseModel):
    """Whether the workers stand still."""

    halted: bool
    partition: int | None = Field(description="Of the record before which they do.", examples=[0])
    position: int | None = Field(examples=[4711])
    code: str | None = Field(description="Why that one would have been set aside as well.", examples=["not_json"])
    reason: str | None
    halted_at: Instant | None


@router.get("", operation_id="list_dead_letters", summary="What was set aside", dependencies=[READ])
async def list_dead_letters(request: Request, question: Annotated[DeadLettersQuestion, Query()]) -> DeadLetterPage:
    """The records that could not be processed, the newest first, each with its reason."""
    services: Services = request.app.state.services
    wanted = LetterFilter(question.code, question.source, question.id)
    asked = ("dead-letters", *wanted)
    before = decode_cursor(question.cursor, asked, tuple[int, int, int]) if question.cursor else None
    async with services.database.transaction() as connection:
        found = await newest_dead_letters(connection, services.log, wanted, before, question.limit + 1)
    return page_of(
        DeadLetterPage,
        found,
        question.limit,
        asked,
        lambda one: (one.recorded_at, one.partition, one.position),
        _answer,
    )


@router.post(
    "/{partition}/{position}/resend",
    operation_id="resend_dead_letter",
    summary="Send a record again",
    status_code=202,
    response_description="Appended to the log once more",
    dependencies=[WRITE],
    responses=responses(404),
)
async def resend_dead_letter(
    request: Request,
    partition: Annotated[int, Path(ge=0, le=2**31 - 1, examples=[0])],
    position: Annotated[int, Path(ge=0, le=2**63 - 1, examples=[4711])],
) -> DeadLetterAnswer:
    """Appends the record once more, as it is; for when it can be processed by now. Its line stays."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        found = await find_dead_letter(connection, services.log, partition, position)
    if found is None:
        detail = f"nothing was set aside at position {position} of partition {partition}"
        raise ProblemError(404, "dead_letter_not_found", detail)
    if len(found.value or b"") > MAX_MESSAGE_BYTES:
        detail = f"it has {len(found.value or b'')} bytes; at most {MAX_MESSAGE_BYTES} can be processed"
        raise ProblemError(422, "too_large", detail)
    (is_durable,) = await services.appender.append([Record(found.key or b"", found.value or b"")])
    if not is_durable:
        raise outcome_unknown({})
    return _answer(found)


@router.get("/halt", operation_id="get_halt", summary="Do the workers stand still?", dependencies=[READ])
async def get_halt(request: Request) -> HaltAnswer:
    """A flood of dead letters stops the workers, so that the log is not drained into them."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        halt = await find_halt(connection, services.log)
    if halt is None:
        return HaltAnswer(halted=False, partition=None, position=None, code=None, reason=None, halted_at=None)
    found = halt._asdict()
    del found["log"]
    return HaltAnswer(halted=True, **found)


@router.delete(
    "/halt",
    operation_id="end_halt",
    summary="Let the workers go on",
    status_code=204,
    dependencies=[WRITE],
    responses=responses(409),
)
async def delete_halt(request: Request) -> Response:
    """From the record before which they stood still. Where nothing was mended, they stop again before long."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        if not await end_halt(connection, services.log):
            raise ProblemError(409, "not_halted", "the workers do not stand still")
    return Response(status_code=204)


def _answer(one: DeadLetter) -> DeadLetterAnswer:
    return DeadLetterAnswer(
        partition=one.partition,
        position=one.position,
        source=one.source,
        id=one.id,
        code=one.code,
        reason=one.reason,
        recorded_at=one.recorded_at,
        key=_shown(one.key),
        value=_shown(one.value),
    )


def _shown(text: bytes | None) -> str | None:
    return None if text is None else text.decode("utf-8", "backslashreplace")[:MAX_SHOWN]
