"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a request that is sent again is answered again.

    router = APIRouter(prefix="/v1/…", route_class=Idempotent)

makes every POST and PUT of a router heed the header. An answer of 2xx is kept for a day, and the same request then gets
it again, flagged `Idempotency-Replayed: true`. A 4xx is not kept, since nothing took effect. After a 5xx, or none at
all, nobody knows: the same request may try again, and what it appends to the log has the id that it had the first time
(`entry_id`), so that it takes effect once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, NamedTuple

import msgspec
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from lifecycle_engine.api.door.bodies import read_sent_body
from lifecycle_engine.api.keys.authentication import Requires, authenticate
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.idempotency import (
    Place,
    Standing,
    begin,
    find_standing,
    finish,
    forget,
    forget_before,
    forget_place,
    let_go,
    take_over,
)

HEADER = "idempotency-key"
KEPT = 24 * 3600 * 1_000_000
"""Microseconds for which a request is known."""
LEASE = 60 * 1_000_000
"""Microseconds after which whoever worked on a request, and never came to its end, is taken to be gone."""
PRUNED_EVERY = 600.0
MAX_BODY_BYTES = 1024 * 1024
METHODS = frozenset({"POST", "PUT"})

_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "1 to 255 ASCII characters, quoted or bare. For a day the same request with the same key and "
    "Idempotency-Key is answered with its first answer (`Idempotency-Replayed: true`) and done once; another request "
    "gets 422, one that is still being worked on 409.",
    "schema": {"type": "string", "pattern": r'^("[ !#-\[\]-~]{1,255}"|[!#-~]{1,255})$'},
    "example": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
}
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"').fullmatch
_BARE = re.compile(r"[!#-~]+").fullmatch

logger = logging.getLogger(__name__)


class Idempotent(APIRoute):
    """A route whose POST and PUT heed the `Idempotency-Key`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if METHODS.intersection(options.get("methods") or ()):
            extra = options.get("openapi_extra") or {}
            others = [one for one in extra.get("parameters", ()) if one != _PARAMETER]
            options["openapi_extra"] = extra | {"parameters": [*others, _PARAMETER]}
            options["responses"] = {**responses(400, 409, 422), **(options.get("responses") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        methods = METHODS.intersection(self.methods or ())
        if not methods:
            return handle
        scopes = next(_scopes(self.dependant))
        route = f"{min(methods)} {self.path_format}"

        async def answer(request: Request) -> Response:
            given = request.headers.getlist(HEADER)
            if not given:
                return await handle(request)
            caller = request.scope["key"] = authenticate(request.scope, scopes)
            place = Place(caller.id, route, _parsed(given))
            body = await read_sent_body(
                request.scope, request.receive, MAX_BODY_BYTES, "a request with an Idempotency-Key"
            )
            return await _once(request, place, body, handle)

        return answer


class _Work(NamedTuple):
    """A request that is ours to answer, as it was first sent then."""

    place: Place
    lease: int
    created_at: int


def shown_once(request: Request) -> None:
    """Says of the answer to come that it holds a secret, which is shown once: it is not kept, nor given again."""
    request.scope["shown_once"] = True


def entry_id(request: Request) -> str | None:
    """The id of what this request appends to the log, each time that it is sent; None without an Idempotency-Key."""
    work: _Work | None = request.scope.get("idempotent_work")
    if work is None:
        return None
    told = msgspec.msgpack.encode((*work.place, work.created_at))
    return f"once-{urlsafe_b64encode(hashlib.blake2b(told, digest_size=18).digest()).decode()}"


@contextlib.asynccontextmanager
async def pruned(database: Database, clock: Callable[[], int]) -> AsyncIterator[None]:
    """Forgets old requests for as long as the block lasts."""

    async def prune() -> None:
        while True:
            await asyncio.sleep(PRUNED_EVERY)
            try:
                async with database.transaction() as connection:
                    await forget_before(connection, clock() - KEPT)
            except Exception as error:
                logger.warning("old requests were not forgotten: %s", type(error).__name__)

    task = asyncio.create_task(prune(), name="idempotency")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _once(
    request: Request, place: Place, body: bytes, handle: Callable[[Request], Coroutine[Any, Any, Response]]
) -> Response:
    services = request.app.state.services
    database: Database = services.database
    found = await _begun(database, services.clock(), place, _fingerprint(request, body))
    if isinstance(found, Standing):
        return _replayed(found)
    request.scope["idempotent_work"] = found
    try:
        response = await handle(Request(request.scope, _receive(body, request.receive)))
    except (ProblemError, RequestValidationError) as error:
        async with _unharmed(), database.transaction() as connection:
            if isinstance(error, ProblemError) and error.status >= 500:
                await let_go(connection, place, found.lease, services.clock())
            else:
                await forget(connection, place, found.lease)
        raise
    except Exception:
        async with _unharmed(), database.transaction() as connection:
            await let_go(connection, place, found.lease, services.clock())
        raise
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
    kept = msgspec.json.encode([one for one in headers if one[0] != "content-length"])
    async with _unharmed(), database.transaction() as connection:
        secret = request.scope.get("shown_once", False)
        await finish(
            connection, place, found.lease, response.status_code, kept, None if secret else bytes(response.body)
        )
    return response


async def _begun(database: Database, now: int, place: Place, fingerprint: bytes) -> _Work | Standing:
    """The request, to be worked on, or the answer that it had. Raises ProblemError 409, 422."""
    lease = secrets.randbits(62)
    async with database.transaction() as connection:
        if await begin(connection, place, fingerprint, lease, now, now + LEASE):
            return _Work(place, lease, now)
        standing = await find_standing(connection, place)
        if standing is None or standing.created_at < now - KEPT:
            await forget_place(connection, place)
            if not await begin(connection, place, fingerprint, lease, now, now + LEASE):
                raise _in_flight()
            return _Work(place, lease, now)
        if standing.fingerprint != fingerprint:
            detail = "this Idempotency-Key came with another request; take a new one for what is not the same"
            raise ProblemError(422, "idempotency_key_reused", detail)
        if standing.status is not None:
            return standing
        if standing.leased_until > now:
            raise _in_flight()
        await take_over(connection, place, lease, now + LEASE)
        return _Work(place, lease, standing.created_at)


def _in_flight() -> ProblemError:
    detail = "the same request is being worked on; ask again for its answer"
    return ProblemError(409, "idempotency_in_flight", detail, headers={"Retry-After": "1"})


def _replayed(standing: Standing) -> Response:
    headers = dict(msgspec.json.decode(standing.headers or b"[]", type=list[tuple[str, str]]))
    if standing.body is None:
        made = f": {headers['location']}" if "location" in headers else ""
        detail = (
            f"it was done, and its answer held a secret, which is shown once{made}; if that did not arrive, revoke "
            "what was made and ask for another with a new Idempotency-Key"
        )
        raise ProblemError(409, "secret_shown_once", detail, more={"location": headers.get("location")})
    return Response(standing.body, standing.status or 200, headers | {"Idempotency-Replayed": "true"})


@contextlib.asynccontextmanager
async def _unharmed() -> AsyncIterator[None]:
    """What is done has been done, also where it cannot be noted: the lease then runs out."""
    try:
        yield
    except Exception as error:
        logger.warning("the answer to a request with an Idempotency-Key was not kept: %s", type(error).__name__)


def _parsed(given: list[str]) -> str:
    """The key, an sf-string (RFC 9651) or bare. Raises ProblemError 400."""
    text = given[0].strip()
    if len(given) == 1 and (quoted := _QUOTED(text)):
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    elif len(given) > 1 or not _BARE(text):
        text = ""
    if not 1 <= len(text) <= 255:
        detail = 'the Idempotency-Key must be one text of 1 to 255 ASCII characters, in "quotes" or without spaces'
        raise ProblemError(400, "invalid_idempotency_key", detail)
    return text


def _fingerprint(request: Request, body: bytes) -> bytes:
    scope = request.scope
    content_type = request.headers.get("content-type", "").encode("latin-1")
    asked = (scope["path"], scope["query_string"], content_type, body)
    return hashlib.blake2b(msgspec.msgpack.encode(asked), digest_size=32).digest()


def _receive(body: bytes, rest: Receive) -> Receive:
    """Gives a body that was read already once more."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await rest()

    return receive


def _scopes(dependant: Dependant) -> Iterator[tuple[str, ...]]:
    for one in dependant.dependencies:
        if isinstance(one.call, Requires):
            yield one.call.scopes
        yield from _scopes(one)
