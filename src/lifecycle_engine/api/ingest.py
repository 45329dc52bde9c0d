"""`POST /v1/touchpoints`. A plain route, not one of FastAPI's, which would cost more than all the rest of the way in."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from lifecycle_engine.api.authentication import authenticate
from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.ingest.intake import Intake, Item, Status
from lifecycle_engine.log.message import InvalidMessageError

PATH = "/v1/touchpoints"
MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_ITEMS = 10_000

_encode = msgspec.json.Encoder().encode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


async def post_touchpoints(request: Request) -> Response:
    """One touchpoint → 202; an array → 207, item by item."""
    services = request.app.state.services
    header = next((value for name, value in request.scope["headers"] if name == b"authorization"), None)
    key = authenticate(services.keys, services.clock, header, ("ingest:write",))
    intake: Intake = services.intake
    body = await read_body(request)
    if body.lstrip()[:1] != b"[":
        (item,) = await intake.take([body], key.name)
        return _one(item)
    try:
        raws = _decode_array(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProblemError(400, "malformed", f"the body is not a JSON array: {error}") from None
    if len(raws) > MAX_ITEMS:
        raise ProblemError(413, "too_many_items", f"the array has {len(raws)} items; at most {MAX_ITEMS} are taken")
    return _many(await intake.take([bytes(raw) for raw in raws], key.name))


async def read_body(request: Request) -> bytes:
    """The JSON body, as long as it is not too long. Raises ProblemError 400, 413, 415."""
    content_type = b""
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            content_type = value.partition(b";")[0].strip().lower()
        elif name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
            raise _too_large()
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise ProblemError(415, "unsupported_encoding", "send the body without a content encoding")
    if content_type not in (b"application/json", b""):
        detail = f"the content type is {content_type.decode('latin-1')[:80]!r}; send application/json"
        raise ProblemError(415, "unsupported_media_type", detail)
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise _too_large()
    except ClientDisconnect:
        raise ProblemError(400, "disconnected", "the body was not sent to its end") from None
    return b"".join(chunks)


def _one(item: Item) -> Response:
    if item.error is not None:
        raise ProblemError(
            _status(item.error), item.error.code, str(item.error), more={"pointer": item.error.pointer, "id": item.id}
        )
    if item.status is Status.UNKNOWN:
        raise ProblemError(
            503,
            "outcome_unknown",
            "the log did not answer in time, so whether the touchpoint was taken is unknown; send it again with this id",
            headers={"Retry-After": "1"},
            more={"id": item.id},
        )
    return Response(_encode({"id": item.id, "status": item.status}), 202, media_type="application/json")


def _many(items: list[Item]) -> Response:
    summary = {status.value: 0 for status in Status}
    answers: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        summary[item.status] += 1
        answer: dict[str, Any] = {"index": index, "id": item.id, "status": item.status}
        if item.error is not None:
            answer["problem"] = {
                "status": _status(item.error),
                "code": item.error.code,
                "detail": str(item.error),
                "pointer": item.error.pointer,
            }
        elif item.status is Status.UNKNOWN:
            answer["problem"] = {
                "status": 503,
                "code": "outcome_unknown",
                "detail": "the log did not answer in time; send the touchpoint again with this id",
                "pointer": "",
            }
        answers.append(answer)
    return Response(_encode({"summary": summary, "items": answers}), 207, media_type="application/json")


def _status(error: InvalidMessageError) -> int:
    return {"malformed": 400, "too_large": 413}.get(error.code, 422)


def _too_large() -> ProblemError:
    return ProblemError(413, "too_large", f"the body has more than {MAX_BODY_BYTES} bytes; send fewer touchpoints at once")
