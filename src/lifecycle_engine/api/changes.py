"""`GET /v1/changes`: every change once, in an order that never changes; in pages, or as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import StreamingResponse

from lifecycle_engine.api.cursors import invalid_cursor
from lifecycle_engine.api.door.negotiation import media_type
from lifecycle_engine.api.keys.authentication import authorization, recognise, requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Text, split
from lifecycle_engine.feed.pages import LOOK, AheadOfFeedError, FeedPage, Tail, read_page
from lifecycle_engine.runners import pause
from lifecycle_engine.store.changes import FeedFilter, SequencedChange
from lifecycle_engine.store.database import is_transient

router = APIRouter(prefix="/v1/changes", tags=["changes"], responses=responses(400, 401, 403, 406, 422, 503))

SCOPE = "changes:read"
JSON, EVENTS = "application/json", "text/event-stream"
DEFAULT_LIMIT = 50
MAX_LIMIT = 5000
MAX_STREAMS = 200
"""Streams that one process serves at a time."""
KEEP_ALIVE = 15.0
"""Seconds without a change after which a stream says that it is still there, and how far it has looked."""
_STREAM_LIMIT = 1000

ChangeType = Literal["stage.changed", "stage.expiring", "history.corrected", "customer.merged"]

T = TypeVar("T")


class ChangeAnswer(BaseModel):
    """One change."""

    position: int = Field(description="Its place in the feed; grows, never changes.", examples=[17])
    type: ChangeType
    muted: bool = Field(description="An import's, or of the past: subscribers are not told of it.")
    data: dict[str, Any] = Field(description="As the webhook of this type carries it.")


class ChangePage(BaseModel):
    """Some changes, in the order of their positions."""

    items: list[ChangeAnswer]
    next_after: str = Field(description="Send it as `after` to get what follows, now or later.", examples=["17"])
    has_more: bool = Field(description="Whether more can be had at once.")


class _Change(msgspec.Struct):
    position: int
    type: str
    muted: bool
    data: msgspec.Raw


class _Page(msgspec.Struct):
    items: list[_Change]
    next_after: str
    has_more: bool


_encode = msgspec.json.Encoder().encode


class ChangesQuestion(BaseModel):
    """From where on the feed is read, and what of it."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[str, Field(max_length=32)] | None = Field(
        None,
        description="The `next_after` of the page before, or the id of the last event. Absent: from the beginning; "
        "`latest`: only what comes from now on.",
        examples=["17"],
    )
    limit: Annotated[int, Field(ge=1), AfterValidator(lambda limit: min(limit, MAX_LIMIT))] = Field(
        DEFAULT_LIMIT, description=f"How many changes at most; more than {MAX_LIMIT} counts as {MAX_LIMIT}."
    )
    type: Annotated[list[ChangeType], BeforeValidator(split)] = Field([], description="Absent: all types.")
    lifecycle: Text | None = Field(None, description="Absent: all lifecycles.")
    muted: bool | None = Field(None, description="Absent: muted ones too, which are marked.")


@router.get(
    "",
    operation_id="list_changes",
    summary="Every change, in the order of the feed",
    response_class=Response,
    dependencies=[Depends(requires(SCOPE))],
    responses={
        200: {
            "description": "A page, or the stream",
            "model": ChangePage,
            "content": {
                EVENTS: {
                    "schema": {"type": "string"},
                    "example": 'id: 17\nevent: stage.changed\ndata: {"position":17,"type":"stage.changed",…}\n\n',
                }
            },
        },
    },
)
async def list_changes(
    request: Request,
    question: Annotated[ChangesQuestion, Query()],
    last_event_id: Annotated[
        str | None,
        Header(
            max_length=32, description="Where a broken stream goes on; goes before `after`. For `text/event-stream`."
        ),
    ] = None,
) -> Response:
    """Pages by `after`: whoever goes on with each page's `next_after` misses nothing and sees nothing twice.

    With `Accept: text/event-stream` the same changes come as server-sent events, each as soon as it is committed; the
    event's id is its position, its name the type, its data the change.
    """
    services: Services = request.app.state.services
    wanted = FeedFilter(tuple(question.type), question.lifecycle, question.muted)
    chosen = media_type(", ".join(request.headers.getlist("accept")) or None, (JSON, EVENTS))
    if chosen is None:
        detail = f"changes are {JSON} or {EVENTS}; accept one of them"
        raise ProblemError(406, "not_acceptable", detail, headers={"Vary": "Accept"})
    headers = {"Vary": "Accept", "Cache-Control": "no-store"}
    if chosen == EVENTS:
        streams: Streams = request.app.state.streams
        after = await _position(services, last_event_id or question.after)
        first = await _page(services, after, wanted, _STREAM_LIMIT)
        return StreamingResponse(streams.events(request, wanted, first), media_type=EVENTS, headers=headers)
    page = await _page(services, await _position(services, question.after), wanted, question.limit)
    body = _Page([_change(one) for one in page.changes], str(page.upto), page.upto < page.end)
    return Response(_encode(body), headers=headers, media_type=JSON)


class Streams:
    """The streams of one process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tail = Tail(services.database)
        self._open = 0

    def events(self, request: Request, wanted: FeedFilter, first: FeedPage) -> AsyncIterator[bytes]:
        """The stream that begins with a page. It ends when the process does, or the key. Raises ProblemError 503."""
        if self._open >= MAX_STREAMS:
            detail = f"{MAX_STREAMS} streams are open already; try again, or read pages"
            raise ProblemError(503, "too_many_streams", detail, headers={"Retry-After": "10"})
        return self._events(request, wanted, first)

    async def _events(self, request: Request, wanted: FeedFilter, page: FeedPage) -> AsyncIterator[bytes]:
        stopping = self._services.health.draining
        self._open += 1
        try:
            yield b"retry: 1000\n\n"
            told_at = time.monotonic()
            while not stopping.is_set() and self._is_allowed(request):
                if page.changes:
                    yield b"".join(map(_event, page.changes))
                    told_at = time.monotonic()
                elif time.monotonic() - told_at > KEEP_ALIVE:
                    # An event without data is passed over, but whoever reconnects goes on from its id.
                    yield b": still here\nid: %d\n\n" % page.upto
                    told_at = time.monotonic()
                if page.upto >= page.end:
                    await pause(stopping, LOOK)
                page = await _uncancelled(lambda at=page: self._next(at, wanted))  # type: ignore[misc]
        finally:
            self._open -= 1

    async def _next(self, page: FeedPage, wanted: FeedFilter) -> FeedPage:
        """What follows a page; an empty one while nothing does, or the database is away."""
        try:
            end = await self._tail.end()
            if end > page.upto:
                return await read_page(self._services.database, page.upto, wanted, _STREAM_LIMIT)
        except Exception as error:
            if not is_transient(error):
                raise
        return FeedPage([], page.upto, page.upto)

    def _is_allowed(self, request: Request) -> bool:
        """Whether the key is still good."""
        try:
            recognise(self._services.keys, self._services.clock(), authorization(request.scope), (SCOPE,))
        except ProblemError:
            return False
        return True


async def _uncancelled(call: Callable[[], Awaitable[T]]) -> T:
    """What a call gives. A reader that hangs up must not break a question to the database in the middle."""
    return await asyncio.shield(asyncio.ensure_future(call()))


async def _page(services: Services, after: int, wanted: FeedFilter, limit: int) -> FeedPage:
    try:
        return await read_page(services.database, after, wanted, limit)
    except AheadOfFeedError as error:
        raise invalid_cursor(
            f"is ahead of the feed, which ends at {error.end}: it was set back, as by restoring a backup; read on from "
            f"{error.end}, and expect that changes after it come anew"
        ) from None


async def _position(services: Services, after: str | None) -> int:
    """Raises ProblemError 400."""
    if after is None:
        return 0
    if after == "latest":
        return await Tail(services.database).end()
    if not (after.isascii() and after.isdigit()) or int(after) >= 1 << 63:
        raise invalid_cursor(
            "was not given out by this service; send a page's `next_after`, an event's id, or `latest`"
        )
    return int(after)


def _change(one: SequencedChange) -> _Change:
    return _Change(one.position, one.type, one.muted, msgspec.Raw(one.body))


def _event(one: SequencedChange) -> bytes:
    # JSON has no line ends of its own.
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (one.position, one.type.encode(), _encode(_change(one)))
