"""`POST /v1/touchpoints`, in plain ASGI: a route of FastAPI's would cost more than all the rest of the way in."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.types import Receive, Scope, Send

from lifecycle_engine.api.authentication import authenticate, authorization
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
        body = await _body(scope, receive)
        if body.lstrip(_SPACE)[:1] == b"[":
            try:
                items = await services.intake.take_array(body, key.name)
            except InvalidMessageError as error:
                raise _problem(error, None) from None
            status, answer = 207, _encode(_results(items))
        else:
            status, answer = 202, _encode(_accepted(await services.intake.take_one(body, key.name)))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _accepted(item: Item) -> Acknowledgement:
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


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The JSON body, as long as it is not too long. Raises ProblemError 400, 413, 415."""
    content_type = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value.lower()
        elif name == b"content-length" and (not value.isdigit() or len(value) > 18 or int(value) > MAX_BODY_BYTES):
            raise _too_large()
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise ProblemError(415, "unsupported_encoding", "send the body without a content encoding")
    if content_type != b"application/json":
        _check_media_type(content_type)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        return body
    chunks: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()
    raise ProblemError(400, "disconnected", "the body was not sent to its end")


def _check_media_type(content_type: bytes | None) -> None:
    media_type, _, parameters = (content_type or b"").partition(b";")
    charset = parameters.partition(b"charset=")[2].split(b";")[0].strip(b' "')
    if media_type.strip() == b"application/json" and charset in (b"", b"utf-8", b"utf8", b"us-ascii"):
        return
    given = "absent" if content_type is None else repr(content_type.decode("latin-1")[:80])
    raise ProblemError(415, "unsupported_media_type", f"the Content-Type is {given}; send application/json, in UTF-8")


def _problem(error: InvalidMessageError, id_: str | None) -> ProblemError:
    more: dict[str, Any] = {"pointer": error.pointer} | ({} if id_ is None else {"id": id_})
    return ProblemError(_status(error), error.code, str(error), more=more)


def _unknown(more: dict[str, Any]) -> ProblemError:
    return ProblemError(503, "outcome_unknown", _UNKNOWN, headers={"Retry-After": "1"}, more=more)


def _status(error: InvalidMessageError) -> int:
    return _STATUSES.get(error.code, 422)


def _too_large() -> ProblemError:
    detail = f"the body has more than {MAX_BODY_BYTES} bytes; send fewer touchpoints at once"
    return ProblemError(413, "too_large", detail, headers={"Connection": "close"})
