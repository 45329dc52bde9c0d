"""`/v1/webhooks/endpoints`: who is told of changes, and of which."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.cursors import Page, PageQuestion, decode_cursor, page_of
from lifecycle_engine.api.door.bodies import described, read_object
from lifecycle_engine.api.door.paths import Part
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, Text
from lifecycle_engine.outbox.filters import FilterError, parse_filter
from lifecycle_engine.outbox.ids import new_id
from lifecycle_engine.outbox.vault import VaultError
from lifecycle_engine.store.endpoints import (
    EndpointRow,
    add_endpoint,
    change_endpoint,
    count_endpoints,
    find_endpoint,
    lock_endpoint,
    newest_endpoints,
    remove_endpoint,
)
from lifecycle_engine.store.health import lock_health, reset_health
from lifecycle_engine.store.secrets import expire_secrets
from lifecycle_engine.webhook.secrets import create_secret
from lifecycle_engine.webhook.signing import KINDS, Asymmetric, Kind, parse_secret

READ = Depends(requires("webhooks:read"))
WRITE = Depends(requires("webhooks:write"))

router = APIRouter(prefix="/v1/webhooks/endpoints", tags=["webhooks"], responses=responses(401, 403, 422, 503))

MAX_BODY_BYTES = 64 * 1024
MAX_ENDPOINTS = 1000
"""Each change is held against every endpoint's filter."""
_ETAG = re.compile(r'\s*(?:W/)?"[^"]*"\s*(?:,\s*(?:W/)?"[^"]*"\s*)*')

EndpointId = Annotated[Part, Path(description="The id of an endpoint.", examples=["ep_01M0PF1C00R5W3Q0X8M4T6B2ZD"])]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=256,
        description="The `ETag` of the version that is meant, or `*` for whichever there is.",
        examples=['"3"'],
    ),
]
ETAG = {"headers": {"ETag": {"schema": {"type": "string"}, "description": "The version, for `If-Match`."}}}


def _each_once(kinds: list[Kind]) -> list[Kind]:
    return [kind for kind in KINDS if kind in kinds]


Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        description="Where events are POSTed to: https, the port 443 or 8443, no user name; its host must not lead to "
        "a private address. `LIFECYCLE_WEBHOOK_ALLOW_NETWORKS` names networks where http and any port will do.",
        examples=["https://example.com/hooks/lifecycle"],
    ),
]
Description = Annotated[Text, Field(max_length=1024, description="For people.", examples=["The shop's CRM"])]
FilterDocument = Annotated[
    dict[str, Any] | None,
    Field(
        description="Which events it gets; all members must hold. `event_types` (also `stage.*`, or `*` for those "
        "about endpoints too), `lifecycle`, `from`, `to`, `move`: lists; `traits`: what the customer's traits must be, "
        "with `$in`, `$gte`, `$gt`, `$lte`, `$lt`, `$not`, `$exist`, `$or`. Null: everything about customers.",
        examples=[{"event_types": ["stage.*"], "to": ["retention"], "traits": {"plan": {"$in": ["pro", "team"]}}}],
    ),
]
ThrottleRate = Annotated[
    Annotated[int, Field(ge=1, le=10_000)] | None,
    Field(description="Attempts a second at most; null: no limit.", examples=[50]),
]
MaxInFlight = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | None,
    Field(description="Attempts at a time at most; null: as many as the dispatchers have room for.", examples=[10]),
]
Ordering = Annotated[
    Literal["none", "per_customer"],
    Field(
        description="`per_customer`: a customer's event waits until the one before it has been taken or given up. "
        "`none`: it doesn't, and what is tried again comes late; `sequence` tells."
    ),
]
Signatures = Annotated[
    list[Kind],
    Field(
        min_length=1,
        description="How events are signed: `v1` with a secret that both sides know, `v1a` with a key pair (ed25519) "
        "of which the receiver needs the public key only.",
        examples=[["v1"]],
    ),
    AfterValidator(_each_once),
]


class EndpointBody(BaseModel):
    """An endpoint to be."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Url
    description: Description = ""
    filter: FilterDocument = None
    throttle_rate: ThrottleRate = None
    max_in_flight: MaxInFlight = None
    ordering: Ordering = "none"
    signatures: Signatures = ["v1"]


class EndpointChange(BaseModel):
    """What is to be another way; what is absent stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Url = ""
    description: Description = ""
    filter: FilterDocument = None
    throttle_rate: ThrottleRate = None
    max_in_flight: MaxInFlight = None
    ordering: Ordering = "none"
    signatures: Signatures = ["v1"]


class EndpointAnswer(BaseModel):
    """An endpoint."""

    id: str = Field(examples=["ep_01M0PF1C00R5W3Q0X8M4T6B2ZD"])
    url: str = Field(examples=["https://example.com/hooks/lifecycle"])
    description: str
    filter: dict[str, Any] | None = Field(description="Which events it gets; null: everything about customers.")
    throttle_rate: int | None
    max_in_flight: int | None
    ordering: Literal["none", "per_customer"]
    signatures: list[Kind]
    status: Literal["enabled", "disabled"]
    disabled_at: Instant | None
    disabled_reason: str | None = Field(
        description="`by_request`; `gone`: it answered 410; `asked_to_stop`: it answered with `webhook-delivery: "
        "disable`; `failing`: for days nothing succeeded.",
        examples=[None],
    )
    created_at: Instant
    updated_at: Instant


class CreatedEndpoint(EndpointAnswer):
    """An endpoint that was just created, with what its receiver verifies with."""

    secret: str | None = Field(
        description="Shown this once: keep it. Null without `v1`.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    public_key: str | None = Field(
        description="Null without `v1a`.", examples=["whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="]
    )


class EndpointPage(Page[EndpointAnswer]):
    """Some of the endpoints."""


@router.post(
    "",
    operation_id="create_endpoint",
    summary="Let somebody be told of changes",
    status_code=201,
    response_description="Created; it gets what is recorded from now on",
    dependencies=[WRITE],
    responses={201: ETAG, **responses(400, 409, 413, 415)},
    openapi_extra=described(EndpointBody),
)
async def create_endpoint(request: Request, response: Response) -> CreatedEndpoint:
    """Creates an endpoint, and the secret that its events are signed with, which is shown this once.

    The URL is checked as it will be before each delivery; nothing is sent to it yet: `POST …/test` does that.
    """
    services: Services = request.app.state.services
    body = await read_object(request, EndpointBody, MAX_BODY_BYTES, "an endpoint")
    filter_ = _stored_filter(body.filter)
    await _check_url(services, body.url)
    shown: dict[Kind, str] = {}
    try:
        async with services.database.transaction() as connection:
            if await count_endpoints(connection) >= MAX_ENDPOINTS:
                detail = f"there are {MAX_ENDPOINTS} endpoints already; remove one that nobody needs any more"
                raise ProblemError(409, "too_many_endpoints", detail)
            now = await services.database.clock(connection)
            row = EndpointRow(
                id=new_id("ep_", now),
                url=body.url,
                description=body.description,
                filter=filter_,
                throttle_rate=body.throttle_rate,
                max_in_flight=body.max_in_flight,
                ordering=body.ordering,
                signatures=" ".join(body.signatures),
                disabled_at=None,
                disabled_reason=None,
                version=1,
                created_at=now,
                updated_at=now,
            )
            await add_endpoint(connection, row)
            for kind in body.signatures:
                shown[kind] = await create_secret(connection, services.vault, row.id, kind, now)
    except VaultError as error:
        raise vault_closed(error) from None
    response.headers["Location"] = f"{router.prefix}/{row.id}"
    response.headers["ETag"] = etag(row)
    pair = parse_secret(shown["v1a"]) if "v1a" in shown else None
    public_key = pair.public if isinstance(pair, Asymmetric) else None
    return CreatedEndpoint(**dict(answer_of(row)), secret=shown.get("v1"), public_key=public_key)


@router.get("", operation_id="list_endpoints", summary="All endpoints", dependencies=[READ], responses=responses(400))
async def list_endpoints(request: Request, question: Annotated[PageQuestion, Query()]) -> EndpointPage:
    """The endpoints, the newest first."""
    services: Services = request.app.state.services
    asked = ("endpoints",)
    before = decode_cursor(question.cursor, asked, tuple[str])[0] if question.cursor else None
    async with services.database.transaction() as connection:
        found = await newest_endpoints(connection, before, question.limit + 1)
    return page_of(EndpointPage, found, question.limit, asked, lambda row: (row.id,), answer_of)


@router.get(
    "/{id}",
    operation_id="get_endpoint",
    summary="One endpoint",
    dependencies=[READ],
    responses={200: ETAG, **responses(404)},
)
async def get_endpoint(request: Request, response: Response, id: EndpointId) -> EndpointAnswer:
    """The endpoint as it is; its `ETag` is for changing it. Its secret is not shown."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        row = await existing(connection, id)
    response.headers["ETag"] = etag(row)
    return answer_of(row)


@router.patch(
    "/{id}",
    operation_id="change_endpoint",
    summary="Change an endpoint",
    dependencies=[WRITE],
    responses={200: ETAG, **responses(400, 404, 412, 413, 415, 428)},
    openapi_extra=described(EndpointChange),
)
async def patch_endpoint(
    request: Request, response: Response, id: EndpointId, if_match: IfMatch = None
) -> EndpointAnswer:
    """Changes what the body names; null takes a limit or the filter away. `If-Match` must say which version is meant.

    Holds for what is recorded from then on, and the URL and the limits also for what is still to be delivered. A
    scheme that `signatures` no longer has is not signed with any more; one that is new gets a secret of its own, which
    `POST …/secret/rotate` shows.
    """
    services: Services = request.app.state.services
    change = await read_object(request, EndpointChange, MAX_BODY_BYTES, "a change of an endpoint")
    fields = {name: getattr(change, name) for name in change.model_fields_set}
    if "filter" in fields:
        fields["filter"] = _stored_filter(change.filter)
    if "url" in fields:
        await _check_url(services, change.url)
    if "signatures" in fields:
        fields["signatures"] = " ".join(change.signatures)
    try:
        async with services.database.transaction() as connection:
            row = await lock_endpoint(connection, id)
            row = _matching(id, row, if_match, is_needed=True)
            now = await services.database.clock(connection)
            was, row = row, row._replace(**fields)
            if row != was:
                row = row._replace(version=row.version + 1, updated_at=now)
                await change_endpoint(connection, row)
            for kind in KINDS:
                had, has = kind in was.signatures.split(), kind in row.signatures.split()
                if had and not has:
                    await expire_secrets(connection, id, kind, now)
                elif has and not had:
                    await create_secret(connection, services.vault, id, kind, now)
    except VaultError as error:
        raise vault_closed(error) from None
    response.headers["ETag"] = etag(row)
    return answer_of(row)


@router.delete(
    "/{id}",
    operation_id="delete_endpoint",
    summary="Remove an endpoint",
    status_code=204,
    response_class=Response,
    response_description="Removed",
    dependencies=[WRITE],
    responses=responses(400, 404, 412),
)
async def delete_endpoint(request: Request, id: EndpointId, if_match: IfMatch = None) -> None:
    """Removes the endpoint and its secrets. What was still to be delivered is dropped; what was is kept as always."""
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        await lock_health(connection, [id])  # First, as dispatchers do.
        _matching(id, await lock_endpoint(connection, id), if_match, is_needed=False)
        await remove_endpoint(connection, id)


@router.post(
    "/{id}/enable",
    operation_id="enable_endpoint",
    summary="Tell an endpoint of changes again",
    dependencies=[WRITE],
    responses={200: ETAG, **responses(404)},
)
async def enable_endpoint(request: Request, response: Response, id: EndpointId) -> EndpointAnswer:
    """It gets what is recorded from now on, and is no longer parked; `POST …/recover` brings what it missed."""
    return await _turn(request, response, id, reason=None)


@router.post(
    "/{id}/disable",
    operation_id="disable_endpoint",
    summary="Tell an endpoint of nothing more",
    dependencies=[WRITE],
    responses={200: ETAG, **responses(404)},
)
async def disable_endpoint(request: Request, response: Response, id: EndpointId) -> EndpointAnswer:
    """It gets nothing until it is enabled; what was still to be delivered is given up, and can be recovered."""
    return await _turn(request, response, id, reason="by_request")


def answer_of(row: EndpointRow) -> EndpointAnswer:
    """An endpoint as it is shown."""
    return EndpointAnswer(
        id=row.id,
        url=row.url,
        description=row.description,
        filter=None if row.filter is None else json.loads(row.filter),
        throttle_rate=row.throttle_rate,
        max_in_flight=row.max_in_flight,
        ordering="per_customer" if row.is_ordered else "none",
        signatures=[kind for kind in KINDS if kind in row.signatures.split()],
        status="enabled" if row.disabled_at is None else "disabled",
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def etag(row: EndpointRow) -> str:
    return f'"{row.version}"'


async def existing(connection: AsyncConnection, id_: str) -> EndpointRow:
    """The endpoint of this id. Raises ProblemError 404."""
    row = await find_endpoint(connection, id_)
    if row is None:
        raise endpoint_not_found(id_)
    return row


def endpoint_not_found(id_: str) -> ProblemError:
    return ProblemError(404, "endpoint_not_found", f"there is no endpoint {id_[:64]!r}")


def vault_closed(error: VaultError) -> ProblemError:
    """The answer where a secret can't be stored or read: whoever runs the service has to do something."""
    return ProblemError(503, "secrets_unavailable", str(error))


async def _turn(request: Request, response: Response, id_: str, reason: str | None) -> EndpointAnswer:
    services: Services = request.app.state.services
    async with services.database.transaction() as connection:
        if reason is None:
            await lock_health(connection, [id_])  # First, as dispatchers do.
        row = await lock_endpoint(connection, id_)
        if row is None:
            raise endpoint_not_found(id_)
        if (row.disabled_at is None) is (reason is not None):
            now = await services.database.clock(connection)
            row = row._replace(
                disabled_at=None if reason is None else now,
                disabled_reason=reason,
                version=row.version + 1,
                updated_at=now,
            )
            await change_endpoint(connection, row)
        if reason is None:
            await reset_health(connection, id_)
    response.headers["ETag"] = etag(row)
    return answer_of(row)


def _stored_filter(document: dict[str, Any] | None) -> str | None:
    """Raises ProblemError 422."""
    if document is None:
        return None
    try:
        return json.dumps(parse_filter(document).document, ensure_ascii=False)
    except FilterError as error:
        problems = [
            {"in": "body", "pointer": f"/filter{one.pointer}", "message": one.message, "hint": one.hint}
            for one in error.problems
        ]
        raise ProblemError(422, "invalid_filter", f"filter{error}", more={"problems": problems}) from None


async def _check_url(services: Services, url: str) -> None:
    """Raises ProblemError 422."""
    if (problem := await services.sender.check(url)) is not None:
        more = {"pointer": "/url", "reason": problem.code}
        raise ProblemError(422, "invalid_url", f"url: {problem.detail}", more=more)


def _matching(id_: str, row: EndpointRow | None, if_match: str | None, *, is_needed: bool) -> EndpointRow:
    """The row, if it is the version that is meant. Raises ProblemError 400, 404, 412, 428."""
    if row is None:
        raise endpoint_not_found(id_)
    if if_match is None:
        if is_needed:
            detail = (
                "send the header If-Match with the ETag of the endpoint as you have read it, so that nobody's change "
                "is lost; or If-Match: * to change whatever is there"
            )
            raise ProblemError(428, "precondition_required", detail)
        return row
    if if_match.strip() == "*":
        return row
    if not _ETAG.fullmatch(if_match):
        raise ProblemError(400, "invalid_etag", f"If-Match: send an ETag with its quotes, such as {etag(row)}, or *")
    # A weak one never matches (RFC 9110, section 13.1.1).
    if etag(row) not in [part.strip() for part in if_match.split(",")]:
        detail = f"the endpoint has been changed since: it is {etag(row)} now; read it again, and then change it"
        raise ProblemError(412, "precondition_failed", detail, headers={"ETag": etag(row)})
    return row
