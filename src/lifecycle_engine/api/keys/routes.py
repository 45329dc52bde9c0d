"""`/v1/keys`: who may ask, and what for."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from lifecycle_engine.api.cursors import Page, PageQuestion, decode_cursor, page_of
from lifecycle_engine.api.door.bodies import described, read_object
from lifecycle_engine.api.door.idempotency import Idempotent, shown_once
from lifecycle_engine.api.door.paths import Part
from lifecycle_engine.api.keys.authentication import Key, requires
from lifecycle_engine.api.keys.issuance import (
    DEFAULT_GRACE,
    MAX_GRACE,
    IssuedKey,
    KeyStateError,
    issue_key,
    revoke,
    rotate_key,
    scopes_of,
    status_of,
)
from lifecycle_engine.api.keys.rates import Rate
from lifecycle_engine.api.keys.scopes import ADMIN, SCOPES
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, InstantParameter, Text
from lifecycle_engine.store.keys import KeyRow, find_key, newest_keys

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=Idempotent, responses=responses(401, 403, 422, 503))
READ = requires("keys:read")
WRITE = requires("keys:write")

MAX_BODY_BYTES = 64 * 1024


def _known(scope: str) -> str:
    if scope not in SCOPES and scope != ADMIN:
        raise ValueError(f"is no scope; there are {', '.join((ADMIN, *SCOPES))}")
    return scope


Scope = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": [ADMIN, *SCOPES]})]
Scopes = Annotated[
    list[Scope],
    Field(
        min_length=1,
        max_length=50,
        description=f"What it may do; `{ADMIN}` stands for all of it, also what later versions add.",
        examples=[["ingest:write"]],
    ),
]
KeyId = Annotated[Part, Path(description="The eight characters of the key after `le_`.", examples=["7Yb0kQ2f"])]
Label = Annotated[Text, Field(min_length=1, max_length=128)]
End = Annotated[InstantParameter, Field(description="When it ceases to be accepted. Absent: never.")]


class KeyRate(BaseModel):
    """How many requests a key may make, counted by each process for itself."""

    model_config = ConfigDict(extra="forbid", strict=True)

    requests: int = Field(ge=1, le=999_999_999, examples=[600])
    seconds: int = Field(ge=1, le=99_999, examples=[60])


class KeyBody(BaseModel):
    """The key that is wanted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[Label, Field(description="For people: who has it, and for what.", examples=["shop, production"])]
    source: Label | None = Field(
        None,
        description="The source of what is posted with it, within which ids are unique. Keys of one source "
        "de-duplicate together. Absent: the name.",
        examples=["shop"],
    )
    scopes: Scopes
    expires_at: End | None = None
    rate_limit: KeyRate | None = Field(None, description="Absent: what the settings say.")


class RotationBody(BaseModel):
    """How the old key goes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    grace_seconds: int = Field(
        DEFAULT_GRACE, ge=0, le=MAX_GRACE, description="For how long the old key is accepted beside the new one."
    )
    expires_at: Annotated[
        InstantParameter | None,
        Field(description="When the new one ceases to be accepted. Absent: it lives as long as the old one was to."),
    ] = None


class KeyAnswer(BaseModel):
    """A key, without its secret."""

    id: str = Field(examples=["7Yb0kQ2f"])
    prefix: str = Field(description="How the key begins.", examples=["le_7Yb0kQ2f"])
    name: str = Field(examples=["shop, production"])
    source: str = Field(examples=["shop"])
    scopes: list[str] = Field(examples=[["ingest:write"]])
    status: Literal["active", "expired", "revoked"]
    rate_limit: KeyRate | None = Field(description="Null: what the settings say.")
    replaces: str | None = Field(description="The id of the key that it was rotated from.")
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None = Field(description="To the minute; null: never.")


class NewKey(KeyAnswer):
    """A key with its text. It is not stored, and nobody can show it again."""

    key: str = Field(examples=["le_7Yb0kQ2f_…"])


class KeyPage(Page[KeyAnswer]):
    """Some of the keys."""


@router.post(
    "",
    operation_id="create_key",
    summary="Make a key",
    status_code=201,
    response_description="Made; its text is shown this once",
    responses=responses(400, 413, 415),
    openapi_extra=described(KeyBody),
)
async def create_key(request: Request, response: Response, key: Annotated[Key, Depends(WRITE)]) -> NewKey:
    """A key cannot make one that may do more than itself."""
    services: Services = request.app.state.services
    body = await read_object(request, KeyBody, MAX_BODY_BYTES, "a key")
    scopes = frozenset(body.scopes)
    _check_reach(key, frozenset(SCOPES) if ADMIN in scopes else scopes)
    now = services.clock()
    _check_end(body.expires_at, now)
    async with services.database.transaction() as connection:
        issued = await issue_key(
            connection,
            now,
            name=body.name,
            source=body.source,
            scopes=scopes,
            expires_at=body.expires_at,
            rate=None if body.rate_limit is None else Rate(body.rate_limit.requests, body.rate_limit.seconds),
        )
    return await _shown(request, response, issued, now)


@router.get("", operation_id="list_keys", summary="All keys", dependencies=[Depends(READ)], responses=responses(400))
async def list_keys(request: Request, question: Annotated[PageQuestion, Query()]) -> KeyPage:
    """The keys, the newest first, also those that are revoked or have expired; not the one of `LIFECYCLE_API_KEY`."""
    services: Services = request.app.state.services
    asked = ("keys",)
    before = decode_cursor(question.cursor, asked, tuple[int, str]) if question.cursor else None
    async with services.database.transaction() as connection:
        found = await newest_keys(connection, before, question.limit + 1)
    now = services.clock()
    return page_of(
        KeyPage, found, question.limit, asked, lambda row: (row.created_at, row.id), lambda row: _answer(row, now)
    )


@router.get("/{id}", operation_id="get_key", summary="One key", dependencies=[Depends(READ)], responses=responses(404))
async def get_key(request: Request, id: KeyId) -> KeyAnswer:
    """What a key may do, and when it was last used."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        row = await find_key(connection, id)
    if row is None:
        raise _not_found(id)
    return _answer(row, services.clock())


@router.post(
    "/{id}/rotate",
    operation_id="rotate_key",
    summary="Put a new key in the place of one",
    status_code=201,
    response_description="Made; its text is shown this once",
    responses=responses(400, 404, 409, 413, 415),
    openapi_extra=described(RotationBody),
)
async def rotate(request: Request, response: Response, id: KeyId, key: Annotated[Key, Depends(WRITE)]) -> NewKey:
    """The new one may do the same and posts for the same source, so that ids go on de-duplicating.

    The old one is accepted for `grace_seconds` more. 409 where it is revoked or has expired.
    """
    services: Services = request.app.state.services
    body = await read_object(request, RotationBody, MAX_BODY_BYTES, "a rotation")
    now = services.clock()
    _check_end(body.expires_at, now)
    async with services.database.transaction() as connection:
        row = await find_key(connection, id, lock=True)
        if row is None:
            raise _not_found(id)
        _check_reach(key, scopes_of(row))
        try:
            issued = await rotate_key(connection, row, now, body.grace_seconds, body.expires_at)
        except KeyStateError as error:
            raise ProblemError(409, "key_not_active", str(error)) from None
    return await _shown(request, response, issued, now)


@router.delete(
    "/{id}",
    operation_id="revoke_key",
    summary="Revoke a key",
    status_code=204,
    response_description="It is refused here from now on, and everywhere within 5 s",
    dependencies=[Depends(WRITE)],
    responses=responses(404),
)
async def delete_key(request: Request, id: KeyId) -> None:
    """For good. What it posted stays, and so does the row, which tells that it was revoked."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        row = await revoke(connection, id, services.clock())
    if row is None:
        raise _not_found(id)
    await services.keys.catch_up()


async def _shown(request: Request, response: Response, issued: IssuedKey, now: int) -> NewKey:
    services: Services = request.app.state.services
    shown_once(request)
    response.headers["Location"] = f"/v1/keys/{issued.row.id}"
    response.headers["Cache-Control"] = "no-store"
    await services.keys.catch_up()
    return NewKey(**dict(_answer(issued.row, now)), key=issued.text)


def _answer(row: KeyRow, now: int) -> KeyAnswer:
    rate = None
    if row.rate_requests is not None and row.rate_seconds is not None:
        rate = KeyRate(requests=row.rate_requests, seconds=row.rate_seconds)
    return KeyAnswer(
        id=row.id,
        prefix=f"le_{row.id}",
        name=row.name,
        source=row.source,
        scopes=sorted(row.scopes),
        status=status_of(row, now),
        rate_limit=rate,
        replaces=row.replaces,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _check_reach(key: Key, scopes: frozenset[str]) -> None:
    if missing := sorted(scopes - key.scopes):
        detail = f"this API key cannot make one that may do more than itself: it lacks {', '.join(missing)}"
        raise ProblemError(403, "scope_missing", detail)


def _check_end(expires_at: int | None, now: int) -> None:
    if expires_at is not None and expires_at <= now:
        raise ProblemError(422, "invalid_time", "expires_at: must lie in the future")


def _not_found(id_: str) -> ProblemError:
    return ProblemError(404, "key_not_found", f"there is no key {id_[:80]!r}")
