"""`POST /v1/touchpoints`, in plain ASGI: a route of FastAPI's would cost more than all the rest of the way in."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.types import Receive, Scope, Send

from lifecycle_engine.api.authentication import authenticate, authorization
from lifecycle_engine.api.bodies import read_json
from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.api.services import Services
from lifecycle_engine.ingest.intake import Item, Status
from lifecycle_engine.log.message import InvalidMessageError

PATH = "/v1/touchpoints"
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
    """One touchpoint → 202; an array → 207, item by item."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: Services = scope["app"].state.services
        key = authenticate(services.keys, services.clock, authorization(scope), (SCOPE,))
        body = await read_json(scope, receive, MAX_BODY_BYTES, "a request")
        if body.lstrip(_SPACE)[:1] == b"[":
            try:
                items = await services.intake.take_array(body, key.name)
            except InvalidMessageError as error:
                raise _problem(error, None) from None
            status, answer = 207, _encode(_results(items))
        else:
            status, answer = 202, _encode(acknowledged(await services.intake.take_one(body, key.name)))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def acknowledged(item: Item) -> Acknowledgement:
    """The answer for what was taken alone. Raises ProblemError 4xx, 503."""
    if item.error is not None:
        raise _problem(item.error, item.id)
    if item.status is Status.UNKNOWN:
        raise _unknown({"id": item.id})
    return Acknowledgement(item.id or "", "accepted")


def _results(items: list[Item]) -> ItemResults:
    accepted = rejected = unknown = 0
    results = []
    for index, (id_, status, error) in enumerate(items):
        if error is not None:
            rejected += 1
            problem = ItemProblem(_status(error), error.code, error.detail, error.pointer)
            results.append(ItemResult(index, id_, "rejected", problem))
        elif status is Status.UNKNOWN:
            unknown += 1
            results.append(ItemResult(index, id_, "unknown", ItemProblem(503, "outcome_unknown", _UNKNOWN, "")))
        else:
            accepted += 1
            results.append(ItemResult(index, id_, "accepted"))
    if unknown and not accepted:
        raise _unknown({})
    return ItemResults(ItemSummary(accepted, rejected, unknown), results)


def _problem(error: InvalidMessageError, id_: str | None) -> ProblemError:
    more: dict[str, Any] = {"pointer": error.pointer} | ({} if id_ is None else {"id": id_})
    return ProblemError(_status(error), error.code, str(error), more=more)


def _unknown(more: dict[str, Any]) -> ProblemError:
    return ProblemError(503, "outcome_unknown", _UNKNOWN, headers={"Retry-After": "1"}, more=more)


def _status(error: InvalidMessageError) -> int:
    return _STATUSES.get(error.code, 422)
