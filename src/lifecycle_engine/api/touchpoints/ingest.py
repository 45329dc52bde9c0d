"""`POST /v1/touchpoints` and `…/validate`, in plain ASGI: a route of FastAPI's would cost more than all the rest.

The answers of every way in are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Receive, Scope, Send

from lifecycle_engine.api.door.bodies import JSON, media_type_of, read_body
from lifecycle_engine.api.keys.authentication import authenticate
from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.touchpoints.progress import preferred_wait
from lifecycle_engine.api.touchpoints.receipts import find_receipt
from lifecycle_engine.ingest.formats.arrays import read_array
from lifecycle_engine.ingest.formats.arrivals import Arrival, Unreadable
from lifecycle_engine.ingest.formats.lines import MEDIA_TYPES as LINES
from lifecycle_engine.ingest.formats.lines import read_lines
from lifecycle_engine.ingest.intake import Item, Status
from lifecycle_engine.log.message import InvalidMessageError, find_id, read_submission
from lifecycle_engine.log.port import LogUnavailableError

PATH = "/v1/touchpoints"
VALIDATE_PATH = "/v1/touchpoints/validate"
SCOPE = "ingest:write"
MAX_BODY_BYTES = 10 * 1024 * 1024

_SPACE = b" \t\n\r"
_STATUSES = {"malformed": 400, "too_large": 413}
_UNKNOWN = "the log did not answer in time, so whether it was taken is unknown; send it again with the same id"


class Acknowledgement(msgspec.Struct):
    """A touchpoint that is durable in the log."""

    id: str
    status: Literal["accepted"]


class ItemProblem(msgspec.Struct):
    """Why one touchpoint of an array was not accepted; `pointer` is a JSON pointer within that touchpoint."""

    status: int
    code: str
    detail: str
    pointer: str


class ItemResult(msgspec.Struct):
    """What became of one touchpoint of an array; `id` is null where none could be read."""

    index: int
    id: str | None
    status: Literal["accepted", "rejected", "unknown"]
    problem: ItemProblem | UnsetType = UNSET


class ItemSummary(msgspec.Struct):
    """How many touchpoints of an array met which end."""

    accepted: int
    rejected: int
    unknown: int


class ItemResults(msgspec.Struct):
    """What became of each touchpoint of an array, in its order."""

    summary: ItemSummary
    items: list[ItemResult]


_encode = msgspec.json.Encoder().encode


class PostTouchpoints:
    """One touchpoint → 202; an array, or lines → 207, item by item."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = authenticate(scope, (SCOPE,))
        arrivals, is_one = await _read(scope, receive)
        await take(scope, send, arrivals, key.source, is_one=is_one)


class ValidateTouchpoints:
    """The same bodies → 200, item by item, and nothing is taken."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: Services = scope["app"].state.services
        key = authenticate(scope, (SCOPE,))
        arrivals, _ = await _read(scope, receive)
        await answer(send, 200, results(services.intake.check(arrivals, key.source)))


async def _read(scope: Scope, receive: Receive) -> tuple[Sequence[Arrival], bool]:
    """What is in a body, and whether it is one touchpoint alone. Raises ProblemError 400, 413, 415."""
    media_type = media_type_of(scope, (JSON, *LINES))
    body = await read_body(scope, receive, MAX_BODY_BYTES, "a request")
    try:
        if media_type != JSON:
            return await read_lines(body), False
        if body.lstrip(_SPACE)[:1] == b"[":
            return await read_array(body), False
    except InvalidMessageError as error:
        raise problem_of(error, None) from None
    try:
        return (read_submission(body),), True
    except InvalidMessageError as error:
        return (Unreadable(find_id(body), error),), True


async def take(scope: Scope, send: Send, arrivals: Sequence[Arrival], source: str, *, is_one: bool) -> None:
    """Takes in what arrived, and answers: one with 202, or 200 and its receipt where that is waited for; many with 207.

    `Preference-Applied: wait=…` says that all that was accepted was applied within the time that the poster would wait.
    Raises ProblemError 4xx, 503.
    """
    services: Services = scope["app"].state.services
    wait = preferred_wait(scope["headers"])
    items = await services.intake.take(arrivals, source)
    acknowledgement = acknowledged(items[0]) if is_one else results(items)
    if wait is None or not await _is_applied(services, wait):
        return await answer(send, 202 if is_one else 207, acknowledgement)
    headers = [(b"preference-applied", b"wait=%d" % wait)]
    if not is_one:
        return await answer(send, 207, acknowledgement, headers)
    own = getattr(arrivals[0], "source", None)
    try:
        receipt = await find_receipt(services, source if own is None else own, items[0].id or "")
    except (LogUnavailableError, SQLAlchemyError, OSError):
        receipt = None
    if receipt is None or receipt.status == "pending":
        return await answer(send, 202, acknowledgement)
    return await answer(send, 200, receipt, headers)


async def _is_applied(services: Services, wait: int) -> bool:
    """Whether everything that was appended by now is applied within so many seconds."""
    try:
        positions = await services.appender.reached()
    except LogUnavailableError:
        return False
    return await services.progress.reaches(positions, wait, services.health.draining)


async def answer(
    send: Send, status: int, body: msgspec.Struct | BaseModel, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answers with JSON."""
    encoded = body.model_dump_json(by_alias=True).encode() if isinstance(body, BaseModel) else _encode(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(encoded)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": encoded})


def acknowledged(item: Item) -> Acknowledgement:
    """The answer for what was taken alone. Raises ProblemError 4xx, 503."""
    if item.error is not None:
        raise problem_of(item.error, item.id)
    if item.status is Status.UNKNOWN:
        raise outcome_unknown({"id": item.id})
    return Acknowledgement(item.id or "", "accepted")


def results(items: Sequence[Item]) -> ItemResults:
    """The answer for what was taken together. Raises ProblemError 503 where nothing is known of any of it."""
    accepted = rejected = unknown = 0
    answers = []
    for index, (id_, status, error) in enumerate(items):
        if error is not None:
            rejected += 1
            problem = ItemProblem(status_of(error), error.code, error.detail, error.pointer)
            answers.append(ItemResult(index, id_, "rejected", problem))
        elif status is Status.UNKNOWN:
            unknown += 1
            answers.append(ItemResult(index, id_, "unknown", ItemProblem(503, "outcome_unknown", _UNKNOWN, "")))
        else:
            accepted += 1
            answers.append(ItemResult(index, id_, "accepted"))
    if unknown and not accepted:
        raise outcome_unknown({})
    return ItemResults(ItemSummary(accepted, rejected, unknown), answers)


def problem_of(error: InvalidMessageError, id_: str | None) -> ProblemError:
    """For what was refused."""
    more: dict[str, Any] = {"pointer": error.pointer} | ({} if id_ is None else {"id": id_})
    return ProblemError(status_of(error), error.code, str(error), more=more)


def outcome_unknown(more: dict[str, Any]) -> ProblemError:
    """For what the log did not acknowledge in time."""
    return ProblemError(503, "outcome_unknown", _UNKNOWN, headers={"Retry-After": "1"}, more=more)


def status_of(error: InvalidMessageError) -> int:
    return _STATUSES.get(error.code, 422)
