"""`POST /v1/events`: CloudEvents over HTTP, in plain ASGI like the way in for touchpoints, and with its answers."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from lifecycle_engine.api.door.bodies import media_type_of, read_body
from lifecycle_engine.api.keys.authentication import authenticate
from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.touchpoints.ingest import MAX_BODY_BYTES, SCOPE, problem_of, take
from lifecycle_engine.ingest.formats.arrivals import Arrival
from lifecycle_engine.ingest.formats.cloudevents import (
    BATCHED,
    PREFIX,
    STRUCTURED,
    read_batch,
    read_binary,
    read_structured,
)
from lifecycle_engine.log.message import InvalidMessageError

PATH = "/v1/events"
_FAMILY = b"application/cloudevents"


class PostEvents:
    """One event, in its headers or as JSON → 202; a batch → 207, item by item."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: Services = scope["app"].state.services
        key = authenticate(scope, (SCOPE,))
        arrivals, is_one = await _read(scope, receive, services)
        await take(scope, send, arrivals, key.source, is_one=is_one)


async def _read(scope: Scope, receive: Receive, services: Services) -> tuple[Sequence[Arrival], bool]:
    """What is in a request, and whether it is one event alone. Raises ProblemError 400, 413, 415."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    content_type = next((value for name, value in headers if name == b"content-type"), b"")
    if not content_type.lower().startswith(_FAMILY):
        if not any(name.startswith(PREFIX) for name, _ in headers):
            detail = f"send an event in headers that begin with ce-, or as {STRUCTURED}, or several as {BATCHED}"
            raise ProblemError(415, "unsupported_media_type", detail)
        body = await read_body(scope, receive, MAX_BODY_BYTES, "a request")
        return (read_binary(headers, body, services.event_types),), True
    media_type = media_type_of(scope, (STRUCTURED, BATCHED))
    body = await read_body(scope, receive, MAX_BODY_BYTES, "a request")
    if media_type == STRUCTURED:
        return (read_structured(body, services.event_types),), True
    try:
        return await read_batch(body, services.event_types), False
    except InvalidMessageError as error:
        raise problem_of(error, None) from None
