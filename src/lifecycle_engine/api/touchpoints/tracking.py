"""`POST /v1/{track,identify,alias,group,page,screen,batch}`: Segment's tracking API, in plain ASGI.

Its libraries take every status but 200 for a failure, and read `code` and `message` of what the problems say.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.types import Receive, Scope, Send

from lifecycle_engine.api.door.bodies import JSON, media_type_of, read_body
from lifecycle_engine.api.keys.authentication import Key, authenticate, authorization
from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.touchpoints.ingest import SCOPE, answer, outcome_unknown, problem_of
from lifecycle_engine.ingest.formats.arrivals import Arrival
from lifecycle_engine.ingest.formats.tracking import (
    CALLS,
    MAX_BATCH_BYTES,
    MAX_CALL_BYTES,
    read_batch,
    read_call,
    write_key,
)
from lifecycle_engine.ingest.intake import Item, Status
from lifecycle_engine.log.message import InvalidMessageError

BATCH = "batch"
PATHS = {kind: f"/v1/{kind}" for kind in (*CALLS, BATCH)}


class CallError(msgspec.Struct):
    """A call that was not taken: its place in the batch, its id if it has one, and why."""

    index: int
    messageId: str | None
    code: str
    message: str


class Tracked(msgspec.Struct):
    """Every call is durable in the log, but for the `errors`."""

    success: Literal[True] = True
    errors: list[CallError] | UnsetType = UNSET


class PostCalls:
    """One kind of call, or batches of all of them → 200, with what was not taken; in strict mode all or nothing."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: Services = scope["app"].state.services
        header = _bearer(authorization(scope))
        # Without a key in a header it can only be in the body, and so that has to be read: no more of it than of any.
        key = None if header is None else authenticate(scope, (SCOPE,), header)
        with services.load.without_key() if key is None else nullcontext():
            body = await self._body(scope, receive)
        try:
            key = key or _key_in(scope, body)
            arrivals: Sequence[Arrival]
            if self._kind == BATCH:
                arrivals = read_batch(body, services.event_types)
            else:
                arrivals = (read_call(self._kind, body, services.event_types),)
        except InvalidMessageError as error:
            raise _refused(error) from None
        is_strict = any(name == b"x-strict-mode" and value.strip() == b"1" for name, value in scope["headers"])
        items = await services.intake.take(arrivals, key.source, whole=is_strict)
        await answer(send, 200, _tracked(items, is_strict=is_strict))

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        media_type_of(scope, (JSON,))
        limit = MAX_BATCH_BYTES if self._kind == BATCH else MAX_CALL_BYTES
        try:
            return await read_body(scope, receive, limit, f"a {self._kind}")
        except ProblemError as error:
            if error.status == 413:
                error.status = 400
            raise


def _bearer(header: bytes | None) -> bytes | None:
    """The header with the key as everybody else sends it: here it is mostly the name in Basic authentication."""
    scheme, _, encoded = (header or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return header
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (ValueError, binascii.Error):
        return b"Bearer " + encoded
    return b"Bearer " + (given[:-1] if given.endswith(b":") else given.partition(b":")[0])


def _key_in(scope: Scope, body: bytes) -> Key:
    text = write_key(body)
    header = None if text is None else b"Bearer " + text.encode("utf-8", "replace")
    return authenticate(scope, (SCOPE,), header)


def _tracked(items: Sequence[Item], *, is_strict: bool) -> Tracked:
    if any(item.status is Status.UNKNOWN for item in items):
        # The libraries know no more than whether all of it has to be sent again.
        raise outcome_unknown({})
    errors = [
        CallError(index, id_, error.code, str(error))
        for index, (id_, _, error) in enumerate(items)
        if error is not None
    ]
    if errors and is_strict:
        first = errors[0]
        detail = f"nothing was taken, because of {len(errors)} of {len(items)} calls: {first.message}"
        raise ProblemError(400, first.code, detail, more={"success": False, "errors": errors})
    return Tracked(errors=errors or UNSET)


def _refused(error: InvalidMessageError) -> ProblemError:
    problem = problem_of(error, None)
    problem.status = 400
    return problem
